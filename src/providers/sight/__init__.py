"""What can be seen of calls: spans, metrics, figures for Prometheus and log records, without secrets."""

from .prometheus import Metrics, prometheus_text
from .record import CallRecord
from .secrets import masked, protect, redacted, secrets_of

__all__ = ["CallRecord", "Metrics", "masked", "prometheus_text", "protect", "redacted", "secrets_of"]
