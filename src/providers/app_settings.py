"""Settings of an application, as a pydantic-settings class that reads what this package reads."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Which provider and model an application uses by default; inherit from it to add the application's own fields.

    Reads the same variables as `create_llm_provider()`, from the environment and from `.env`. This class is for
    applications: providers read their own settings without it.

    Attributes:
        default_llm_provider: `DEFAULT_LLM_PROVIDER`, or `None`.
        default_model_name: `DEFAULT_MODEL_NAME`, or `None`.
    """

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore")

    default_llm_provider: str | None = None
    default_model_name: str | None = None
