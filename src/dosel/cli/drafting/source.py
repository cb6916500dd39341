"""The file of a proposed declaration. Each line that the CSV does not prove has a comment `# guessed`.

The file is Python, which dosel runs. The CSV's words are only in its texts and comments: `check_source` makes sure.
"""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dosel import usecases
from dosel.cli.drafting.columns import title_of
from dosel.cli.drafting.draft import Draft
from dosel.errors import SourceError
from dosel.rows import encodings
from dosel.usecases import Category, Feature, Number, Target

WIDTH = 120
GUESSED = "# guessed"

_SMALL = 2_000
"""With fewer rows than this, a few held-out rows decide a comparison."""


_LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

_PLAIN = (ast.Call, ast.Name, ast.Load, ast.Constant, ast.Tuple, ast.Dict, ast.keyword, ast.UnaryOp, ast.USub)
"""What a declaration may consist of: calls by name, literals, and negative numbers."""


def source(draft: Draft, name: str) -> str:
    """The text of the file, in the project's own format.

    Raises:
        SourceError: the text would be more than a declaration.
    """
    text = "\n".join(_lines(draft, name)) + "\n"
    check_source(text)
    return text


def check_source(text: str) -> None:
    """Check that a file imports names of dosel, calls them with literals, and does nothing else.

    Raises:
        SourceError: it does something else.
    """
    refused = SourceError("the proposal would not be a plain declaration; rename the columns, or choose another --name")
    try:
        docstring, *statements = ast.parse(text).body
    except (SyntaxError, ValueError) as error:
        raise refused from error
    *imports, declared = statements or [docstring]
    known: set[str] = set()
    for line in imports:
        if not (isinstance(line, ast.ImportFrom) and line.module and line.module.startswith("dosel.usecases.")):
            raise refused
        known |= {alias.name for alias in line.names if alias.asname is None}
    if not (isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)):
        raise refused
    if not (isinstance(declared, ast.Assign) and isinstance(declared.value, ast.Call)):
        raise refused
    if [type(target) for target in declared.targets] != [ast.Name]:
        raise refused
    parts = list(ast.walk(declared.value))
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    if not all(isinstance(part, _PLAIN) for part in parts) or not names <= known:
        raise refused


def _lines(draft: Draft, name: str) -> Iterator[str]:
    profile, target = draft.profile, draft.target
    optional = any(feature.optional for feature in draft.features if isinstance(feature, Number))
    uses = ["Family", "FileRows", "Gate", *(["Preprocessing"] if optional else ()), "Split", "UseCase"]
    kinds = {type(feature).__name__ for feature in draft.features} | {"Target"}
    kinds |= {"Choice"} if "Category" in kinds else set()
    kinds |= {"Bins"} if target.bins else set()
    yield f'"""{title_of(name)}: proposed by `dosel init`. Look at each line with `{GUESSED}`."""'
    yield ""
    yield "from dosel.usecases._estimators import k_neighbours, lightgbm, random_forest"
    yield f"from dosel.usecases.declaration import {', '.join(uses)}"
    yield f"from dosel.usecases.features import {', '.join(sorted(kinds))}"
    yield ""
    for column, reason in draft.left_out.items():
        yield f"# Left out: {_in_comment(_text(column))}. {_in_comment(reason[0].upper() + reason[1:])}."
    if draft.left_out:
        yield ""
    yield f"{name.upper()} = UseCase("
    yield f"    name={_text(name)},"
    yield f"    title={_text(title_of(name))},  {GUESSED}"
    yield f"    summary={_text(f'{target.title}, predicted from {len(draft.features)} columns.')},  {GUESSED}"
    yield "    features=("
    for feature in draft.features:
        yield from _feature(draft, feature)
    yield "    ),"
    yield from _target(draft)
    yield f"    experiment={_text(f'{name}_training_experiment')},"
    yield f"    model_name={_text(f'{name}_{target.name.lower()}')},"
    arguments = [_text(str(profile.path.resolve()))]
    if profile.encoding != encodings.UTF_8:
        arguments.append(f"encoding={_text(profile.encoding)}")
    yield from _call(4, "rows=FileRows", arguments, "")
    if draft.missing:
        yield f"    missing={_tuple(draft.missing)},  {GUESSED}: the marks in the file"
    if (share := _refused_share(draft)) > 0.05:
        yield f"    max_refused_share={share},  {GUESSED}: {draft.without_target:,} rows have no {target.name}"
    if optional:
        yield f'    preprocessing=Preprocessing(imputer="iterative"),  {GUESSED}: fills in missing numbers'
    yield f"    families=(  {GUESSED}"
    yield '        Family("knn", k_neighbours, {"n_neighbors": (3, 9)}),'
    yield '        Family("random_forest", random_forest, {"n_estimators": (50, 100)}, strategy="forest_prefixes"),'
    yield '        Family("lightgbm", lightgbm, {"n_estimators": (50, 100), "num_leaves": (7, 31)}),'
    yield "    ),"
    yield f"    split=Split(salt={_text(f'{name}-1')}),"
    metric = "balanced_accuracy" if draft.is_unbalanced else "accuracy"
    tolerance = 0.05 if profile.rows < _SMALL else 0.01
    yield f"    gate=Gate({_text(metric)}, tolerance={tolerance}),  {GUESSED}: add floor=, the least that is useful"
    yield ")"


def _feature(draft: Draft, feature: Feature) -> Iterator[str]:
    lacking = draft.lacking[feature.name]
    yield f"        {type(feature).__name__}("
    yield f"            {_text(feature.name)},"
    yield f"            {_text(feature.title)},  {GUESSED}"
    match feature:
        case Number():
            low, high = draft.seen[feature.name]
            yield f"            {_text(feature.unit)},  {GUESSED}: the unit"
            yield f"            minimum={_value(feature.minimum)},  {GUESSED}: {low:g} in the file"
            yield f"            maximum={_value(feature.maximum)},  {GUESSED}: {high:g} in the file"
        case Category():
            yield "            choices=("
            for choice in feature.choices:
                aliases = (_tuple(choice.aliases),) if choice.aliases else ()
                comment = f"  {GUESSED}: the spelling" if aliases else ""
                yield from _call(16, "Choice", (_text(choice.value), _text(choice.title), *aliases), comment)
            yield "            ),"
    yield f"            example={_value(feature.example)},"
    yield f"            help={_text(feature.help)},  {GUESSED}"
    if isinstance(feature, Number) and not feature.integer:
        yield "            integer=False,"
    if feature.optional:
        yield f"            optional=True,  # {lacking:,} rows have none"
    if feature.aliases:
        yield f"            aliases={_tuple(feature.aliases)},"
    yield "        ),"


def _target(draft: Draft) -> Iterator[str]:
    target: Target = draft.target
    yield f"    target=Target(  {GUESSED}: which column to predict" if draft.target_is_guessed else "    target=Target("
    yield f"        {_text(target.name)},"
    yield f"        {_text(target.title)},  {GUESSED}"
    by_number = target.bins or not target.spellings
    yield "        {" + (f"  {GUESSED}: what each class is called" if by_number else "")
    for code, label in target.labels.items():
        yield f"            {code}: {_text(label)},  # {draft.classes[label]:,} rows"
    yield "        },"
    if target.spellings:
        yield "        spellings={"
        for text, code in target.spellings.items():
            yield f"            {_text(text)}: {code},"
        yield "        },"
    if target.bins:
        bins = (_value(target.bins.minimum), _value(target.bins.maximum), f"at={_tuple(target.bins.at)}")
        yield f"        bins=Bins({', '.join(bins)}),  {GUESSED}: classes with about as many rows each"
    if target.aliases:
        yield f"        aliases={_tuple(target.aliases)},"
    yield "    ),"


def _refused_share(draft: Draft) -> float:
    """Twice the share of rows that have no target, which ingest refuses."""
    return min(0.9, round(2 * draft.without_target / draft.profile.rows, 2))


def _call(indent: int, name: str, arguments: Sequence[str], comment: str) -> Iterator[str]:
    line = f"{' ' * indent}{name}({', '.join(arguments)}),"
    if len(line) <= WIDTH:
        yield line + comment
        return
    yield f"{' ' * indent}{name}("
    for argument in arguments:
        line = f"{' ' * (indent + 4)}{argument},"
        # The path of a file may be longer than any line; ruff forgives that if it has no blank.
        yield f"{line}  # noqa: E501" if len(line) > WIDTH and " " in argument else line
    yield f"{' ' * indent}),{comment}"


def _tuple(values: Sequence[Any]) -> str:
    inside = ", ".join(map(_value, values))
    return f"({inside},)" if len(values) == 1 else f"({inside})"


def _value(value: Any) -> str:
    # As ruff formats large numbers.
    return _text(value) if isinstance(value, str) else repr(value).replace("e+", "e")


def _in_comment(text: str) -> str:
    """A text without line breaks, which would end the comment."""
    return _LINE_BREAKS.sub(" ", text)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def place_of(name: str) -> Path:
    """Where the file of a use case goes."""
    return Path(usecases.__path__[0]) / f"{name}.py"
