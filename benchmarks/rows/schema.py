"""The typed answer that every row asks for."""

from pydantic import BaseModel


class Capital(BaseModel):
    """A capital."""

    city: str
    country: str
    population: int
    tags: list[str]
