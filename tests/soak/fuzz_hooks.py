"""Hooks that Schemathesis loads for `make fuzz`."""

from typing import Any

import schemathesis
from schemathesis import Case, HookContext

CSV = "text/csv"


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Send the example in place of other text that the schema accepts as a CSV.

    A JSON Schema cannot describe CSVs of a use case's columns, so that the API has to refuse almost all texts that
    the schema accepts. Texts that the schema does not accept are sent unchanged.
    """
    if case.media_type == CSV and case.meta is not None and case.meta.generation.mode.is_positive:
        case.body = case.operation.definition.raw["requestBody"]["content"][CSV]["example"]
