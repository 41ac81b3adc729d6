"""A response cache in Qdrant that finds answers to similar questions, for llm-provider-system."""
