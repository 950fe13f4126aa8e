"""Approvals from an image's facts: unsigned statements, to be signed where the key is."""

from __future__ import annotations

from datetime import datetime, timedelta

from ocispec.config import ImageConfig
from policy.errors import PolicyError
from policy.model import ImageFacts, LayerFacts
from policy.statements import ConfigFacts, ImageApproval, LayerApproval
from policy.times import whole_seconds


def config_facts(config: ImageConfig) -> ConfigFacts:
    """The fields of a config that steer the process (S11)."""
    return ConfigFacts(
        user=config.user,
        env=config.env,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        working_dir=config.working_dir,
        volumes=config.volumes,
        stop_signal=config.stop_signal,
    )


def approve_image(image: ImageFacts, level: str, *, issued: datetime, lifetime: timedelta) -> ImageApproval:
    """The approval of a whole image, with its config and the root index that the signer built.

    Raises:
        PolicyError: it would end before it begins.
    """
    begin, end = _span(issued, lifetime)
    return ImageApproval(
        level=level,
        manifest=image.manifest,
        config=image.config,
        config_facts=image.config_facts,
        diff_ids=tuple(layer.diff_id for layer in image.layers),
        root_index=image.root_index,
        reader=image.reader,
        format=image.format,
        platform=image.platform,
        issued=begin,
        expires=end,
    )


def approve_layer(layer: LayerFacts, level: str, *, issued: datetime, lifetime: timedelta) -> LayerApproval:
    """The approval of a single layer.

    One that writes a package database is approved with all below it, by chain ID: on an older base it would
    hide that base's holes (L8).

    Raises:
        PolicyError: it would end before it begins.
    """
    begin, end = _span(issued, lifetime)
    return LayerApproval(
        level=level,
        diff_id=layer.diff_id,
        chain_id=layer.chain_id if layer.writes_package_database else None,
        issued=begin,
        expires=end,
    )


def _span(issued: datetime, lifetime: timedelta) -> tuple[datetime, datetime]:
    begin = whole_seconds(issued)
    end = whole_seconds(issued + lifetime)
    if end <= begin:
        raise PolicyError(f"approval: a lifetime of {lifetime} is over at once")
    return begin, end
