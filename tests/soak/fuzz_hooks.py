"""What Schemathesis loads for `make fuzz`."""

from typing import Any

import schemathesis
from schemathesis import Case, HookContext

CSV = "text/csv"


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Send the example in place of other text that the schema accepts as a CSV.

    A JSON Schema cannot say which texts are CSVs of a use case's columns, so that almost all that it accepts has to be
    refused. Texts that the schema does not accept stay as they are.
    """
    if case.media_type == CSV and case.meta is not None and case.meta.generation.mode.is_positive:
        case.body = case.operation.definition.raw["requestBody"]["content"][CSV]["example"]
