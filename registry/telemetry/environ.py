"""What stands in a request's environment (PEP 3333) beside what the server puts there."""

from __future__ import annotations

from typing import Final

SOURCE: Final = "pratique.source"
"""The address that the request comes from, also behind proxies."""

REQUEST: Final = "pratique.request"
"""Its id: a believed proxy's, or one of ours; answered as X-Request-Id."""

ENDPOINT: Final = "pratique.endpoint"
"""Set by the application: which handler answers, for metrics and spans; one of few words."""

ACCOUNT: Final = "pratique.account"
"""Set by the application: who asks."""

OFFER: Final = "pratique.offer"
"""Set by the application: that its answer may be given again (`again.py`)."""

RECEIVED: Final = "pratique.received"
"""Set by the application: how many bytes of the body were read."""

COPIES: Final = "pratique.copies"
"""Set before the application is called, where the server copies each part of an answer before it asks for the next."""
