"""Types of fields that several blocks share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Sigma = Annotated[float, Field(ge=0, le=3, allow_inf_nan=False)]
DAY_S = 86_400.0
