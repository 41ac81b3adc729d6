"""A response cache in PostgreSQL behind Redis, and limits shared through Redis, for llm-provider-system."""
