"""Performer: kernel attention through random features."""

from attention.backends.performer.attention import PerformerAttention as PerformerAttention
