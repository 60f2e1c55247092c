"""Another name of `agents.policy_agent`."""

from agents.policy_agent import PolicyAgent

__all__ = ["PolicyAgent"]
