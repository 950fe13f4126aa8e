"""Approvals made from an image's facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from policy import wire
from policy.approve import approve_image, approve_layer
from policy.errors import PolicyError
from tests.support.trust import DAY, NOW, image_facts


def test_an_image_is_approved_with_its_config_and_its_tree() -> None:
    image = image_facts()
    approval = approve_image(image, "application", issued=NOW + timedelta(microseconds=9), lifetime=30 * DAY)
    assert (approval.manifest, approval.config, approval.root_index) == (image.manifest, image.config, image.root_index)
    assert approval.config_facts == image.config_facts
    assert approval.diff_ids == tuple(layer.diff_id for layer in image.layers)
    assert (approval.issued, approval.expires) == (NOW, NOW + 30 * DAY)
    wire.encode(approval)


def test_a_layer_that_writes_a_package_database_is_approved_with_all_below_it_l8() -> None:
    base, top = image_facts().layers
    writes = replace(top, writes_package_database=True)
    assert approve_layer(writes, "application", issued=NOW, lifetime=DAY).chain_id == top.chain_id
    assert approve_layer(top, "application", issued=NOW, lifetime=DAY).chain_id is None
    assert approve_layer(base, "base", issued=NOW, lifetime=DAY).chain_id == base.chain_id


def test_an_approval_that_is_over_at_once_is_not_made() -> None:
    for lifetime in (timedelta(0), timedelta(microseconds=1), -DAY):
        with pytest.raises(PolicyError, match="lifetime"):
            approve_image(image_facts(), "base", issued=NOW, lifetime=lifetime)
