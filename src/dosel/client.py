"""The client of the prediction API, for the page, the DAGs, scripts and `dosel`.

A refused request raises `ApiProblem` with the text of the problem document; an API that does not answer raises
`ServiceError`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from csv import reader
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from dosel.errors import AnswerTimeout, ServiceError

if TYPE_CHECKING:
    import pandas as pd

ATTEMPTS = 4
MAX_WAIT_SECONDS = 4

FEEDBACK_ROWS = 5_000
"""Most rows of feedback in one call."""


BULK_SECONDS = 600.0
"""Seconds in which the API must begin to answer a bulk request: all rows are predicted before that."""


EXPLANATION_SECONDS = 60.0
"""Seconds in which the API must explain an answer: the first explanation reads the training rows and libraries."""


COMPARISON_SECONDS = 150.0
"""Seconds in which the API must answer a comparison: it loads two models and reads the held-out rows."""


@dataclass(frozen=True)
class BulkAnswer:
    """The answer to a CSV: a CSV in the same order, which arrives piece by piece. `size` is its length in bytes.

    `stale` is as in `Client.predict`.
    """

    model: str
    version: int
    request_id: str
    size: int
    pieces: Iterator[bytes]
    stale: bool


class ApiProblem(ServiceError):
    """The API answered with a problem document (RFC 9457).

    `errors` has an entry for each refused field: field (None for the whole body), expected, got, message.
    """

    def __init__(self, status: int, detail: str, errors: list[dict[str, Any]]) -> None:
        super().__init__(f"the prediction API answered {status}: {detail}")
        self.status = status
        self.detail = detail
        self.errors = errors


class Client:
    """The prediction API at `url`.

    Args:
        timeout: seconds for one attempt.
        key: sent with each request, if it is not empty.
        attempts: number of attempts for calls that are safe to repeat, if the API does not answer or is not ready.
        transport: carries the requests; tests replace it.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 30,
        attempts: int = ATTEMPTS,
        transport: httpx.BaseTransport | None = None,
        key: str = "",
    ) -> None:
        # As bytes, since httpx sends only ASCII of text.
        headers = {b"X-API-Key": key.encode()} if key else None
        self._http = httpx.Client(base_url=url, timeout=timeout, transport=transport, headers=headers)
        self._attempts = attempts

    def __repr__(self) -> str:
        return f"Client({str(self._http.base_url)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def predict(
        self, use_case: str, row: Mapping[str, Any], model: str | None = None, version: int | None = None
    ) -> dict[str, Any]:
        """The answer for one row, by `model` (default: the version in Production). Not repeated on errors.

        `version` names a registered version by its number instead.

        The answer's `request_id` is what `feedback` takes. `stale` is true if the API could not confirm that the
        version is still in Production.
        """
        response = self._asked_about(f"/predict/{use_case}", row, {"model": model, "version": version})
        return self._json(response) | {
            "request_id": response.headers.get("X-Dosel-Request-ID", ""),
            "stale": _is_stale(response),
        }

    def what_if(
        self, use_case: str, rows: Iterable[Mapping[str, Any]], model: str | None = None, version: int | None = None
    ) -> list[dict[str, Any]]:
        """The answers for rows that nobody observed, which the prediction log does not keep. Not repeated on errors."""
        response = self._answered(
            "POST",
            f"/predict/{use_case}/batch",
            content=json.dumps([dict(row) for row in rows]),
            headers={"Content-Type": "application/json"},
            params={"log": False} | {n: v for n, v in (("model", model), ("version", version)) if v},
        )
        found: list[dict[str, Any]] = self._json(response)["predictions"]
        return found

    @contextmanager
    def predict_csv(
        self, use_case: str, content: Iterable[bytes], size: int, model: str | None = None
    ) -> Iterator[BulkAnswer]:
        """The answers for the rows of a CSV in UTF-8, which is sent piece by piece. Not repeated on errors.

        Args:
            size: length of the content in bytes.
            model: as in `predict`.

        Raises:
            ApiProblem: refused; `errors` has an entry for each invalid value, with its row from 1 as `row`.
            ServiceError: the API does not answer, or its answer ends too early.
        """
        with self._named_errors():
            request = self._http.build_request(
                "POST",
                f"/predict/{use_case}/batch",
                content=content,
                params={"model": model} if model else None,
                headers={"Content-Type": "text/csv", "Content-Length": str(size)},
                timeout=httpx.Timeout(self._http.timeout.connect, read=BULK_SECONDS),
            )
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    response.read()
                    raise _problem(response)
                yield BulkAnswer(
                    response.headers.get("X-Model", ""),
                    int(response.headers.get("X-Model-Version", 0)),
                    response.headers.get("X-Dosel-Request-ID", ""),
                    int(response.headers.get("Content-Length", 0)),
                    response.iter_bytes(),
                    _is_stale(response),
                )
            finally:
                response.close()

    def predict_frame(self, use_case: str, rows: "pd.DataFrame", model: str | None = None) -> "pd.DataFrame":
        """The rows with their answers: `prediction`, `label` and each class's probability, in columns after their own.

        The frame's `attrs` have `model`, `version` and the `request_id` that `feedback` takes, with `row` from 1.

        Args:
            rows: the use case's columns, by their names or aliases, and any others.
            model: as in `predict`.

        Raises:
            ApiProblem: refused; `errors` has an entry for each invalid value, with its row from 1 as `row`.
        """
        # Imported here: other calls need neither pandas nor the second that its import takes.
        import pandas as pd

        content = rows.to_csv(index=False).encode()
        with self.predict_csv(use_case, [content], len(content), model) as answer:
            csv = b"".join(answer.pieces)
        columns = next(reader([csv.partition(b"\n")[0].decode().strip()]))
        # Columns of `rows` that the use case does not have come first; one of them may be named like an answer's.
        first = len(columns) - 1 - columns[::-1].index("prediction")
        found = pd.read_csv(BytesIO(csv), header=0, names=range(len(columns)), usecols=range(first, len(columns)))
        found.columns, found.index = pd.Index(columns[first:]), rows.index
        joined = pd.concat([rows, found], axis="columns")
        joined.attrs |= {"model": answer.model, "version": answer.version, "request_id": answer.request_id}
        return joined

    def feedback(self, use_case: str, truths: Iterable[Mapping[str, Any]]) -> dict[str, int]:
        """Give the truth about answers; return how many were accepted, known before, and so on.

        It is sent in calls of at most `FEEDBACK_ROWS` rows. All of a call is stored, or none; giving the same again
        changes nothing.

        Args:
            truths: rows with `request_id`, `truth` and, for a bulk request, `row`.

        Raises:
            ApiProblem: a call was refused; those before it are stored.
        """
        counts: Counter[str] = Counter()
        rows = iter(truths)
        while part := list(islice(rows, FEEDBACK_ROWS)):
            content = json.dumps([dict(row) for row in part])
            headers = {"Content-Type": "application/json"}
            counts.update(self._repeat("POST", f"/feedback/{use_case}", content=content, headers=headers))
        return dict(counts)

    def explain(
        self, use_case: str, row: Mapping[str, Any], model: str | None = None, version: int | None = None
    ) -> dict[str, Any]:
        """The explanation of an answer. With `version`, only that version's answer is explained."""
        timeout = httpx.Timeout(self._http.timeout.connect, read=EXPLANATION_SECONDS)
        params = {"model": model, "version": version}
        return self._json(self._asked_about(f"/explain/{use_case}", row, params, timeout=timeout))

    def use_cases(self) -> list[dict[str, Any]]:
        """The declared use cases, with all that a form needs."""
        found: list[dict[str, Any]] = self.described()["use_cases"]
        return found

    def described(self) -> dict[str, Any]:
        """What the API serves: its use cases, and whether predictions need a key."""
        return self._repeat("GET", "/use-cases")

    def models(self) -> list[dict[str, Any]]:
        """The registered models with their versions, newest first."""
        found: list[dict[str, Any]] = self._repeat("GET", "/models")["models"]
        return found

    def model_info(self, use_case: str) -> dict[str, Any]:
        """The version in Production and the version that the API has loaded."""
        return self._repeat("GET", "/model-info", params={"use_case": use_case})

    def readiness(self) -> dict[str, Any]:
        """Whether each use case has a model, and what it waits for.

        Raises:
            ApiProblem: no use case has a model yet.
        """
        return self._repeat("GET", "/readyz")

    def history(self, model: str) -> dict[str, Any]:
        """The promotion ledger of a registered model, oldest entry first."""
        return self._repeat("GET", f"/models/{model}/history")

    def approvals(self, model: str) -> list[dict[str, Any]]:
        """The promotions of a registered model that wait for more people."""
        found: list[dict[str, Any]] = self._repeat("GET", f"/models/{model}/approvals")["requests"]
        return found

    def history_csv(self, model: str) -> str:
        """The promotion ledger as CSV."""
        return self._answered("GET", f"/models/{model}/history", params={"format": "csv"}).text

    def card(self, model: str, number: int) -> str:
        """A version's model card as Markdown."""
        path = f"/models/{model}/versions/{number}/card"
        return self._answered("GET", path, params={"format": "md"}).text

    def compare(self, model: str, a: int, b: int) -> dict[str, Any]:
        """Two versions side by side, on the held-out rows that neither was trained on."""
        params, timeout = {"a": a, "b": b}, httpx.Timeout(self._http.timeout.connect, read=COMPARISON_SECONDS)
        return self._repeat("GET", f"/models/{model}/compare", params=params, timeout=timeout)

    def version(self, model: str, number: int) -> dict[str, Any]:
        """A version and its lineage."""
        return self._repeat("GET", f"/models/{model}/versions/{number}")

    def health(self, use_case: str) -> dict[str, Any]:
        """Whether the version in Production is still as good as the gate found."""
        return self._repeat("GET", f"/use-cases/{use_case}/health")

    def shadows(self, use_case: str) -> list[dict[str, Any]]:
        """The versions in shadow, and what live rows showed of them."""
        found: list[dict[str, Any]] = self._repeat("GET", f"/use-cases/{use_case}/shadow")["shadows"]
        return found

    def batches(self, use_case: str) -> dict[str, Any]:
        """The newest entries of the batch ledger, and the totals of all entries."""
        return self._repeat("GET", f"/use-cases/{use_case}/batches")

    def events(self, use_case: str, limit: int = 100) -> list[dict[str, Any]]:
        """What happened to a use case, newest first."""
        found = self._repeat("GET", "/events", params={"use_case": use_case, "limit": limit})
        events: list[dict[str, Any]] = found["events"]
        return events

    def quarantine(self, use_case: str, limit: int = 100) -> list[dict[str, Any]]:
        """Refused rows, newest batch first, with the reason and what was received."""
        found = self._repeat("GET", f"/use-cases/{use_case}/quarantine", params={"limit": limit})
        rows: list[dict[str, Any]] = found["rows"]
        return rows

    def warm_up(self, use_case: str = "") -> dict[str, Any]:
        """Make the API ask the registry now, for one use case or all; return the loaded versions by use case."""
        return self._repeat("POST", "/warmup", params={"use_case": use_case} if use_case else {})

    def _repeat(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """Call the API, and retry if it does not answer or is not ready."""
        retrying = Retrying(
            retry=retry_if_exception(_is_temporary),
            stop=stop_after_attempt(self._attempts),
            wait=wait_random_exponential(multiplier=0.3, max=MAX_WAIT_SECONDS),
            reraise=True,
        )
        return retrying(self._ask, method, path, **request)

    def _asked_about(
        self, path: str, row: Mapping[str, Any], params: Mapping[str, Any], **request: Any
    ) -> httpx.Response:
        return self._answered(
            "POST",
            path,
            # httpx's own encoder raises for NaN; the API's error names the field.
            content=json.dumps(dict(row)),
            headers={"Content-Type": "application/json"},
            params={name: value for name, value in params.items() if value},
            **request,
        )

    def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        return self._json(self._answered(method, path, **request))

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = response.json()
        except ValueError as error:
            path = response.request.url.path
            raise ServiceError(
                f"the answer of {self._http.base_url} to {path} is not JSON; is it the prediction API?"
            ) from error
        return answer

    def _answered(self, method: str, path: str, **request: Any) -> httpx.Response:
        with self._named_errors():
            response = self._http.request(method, path, **request)
        if response.is_success:
            return response
        raise _problem(response)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.ReadTimeout as error:
            seconds = error.request.extensions["timeout"]["read"]
            raise AnswerTimeout(
                f"the prediction API at {self._http.base_url} did not answer within {seconds:g} s; try again"
            ) from error
        except httpx.RequestError as error:
            raise ServiceError(
                f"the prediction API at {self._http.base_url} cannot be reached ({type(error).__name__}); "
                "is it running?"
            ) from error


def _is_stale(response: httpx.Response) -> bool:
    return bool(response.headers.get("X-Model-Stale") == "true")


def _problem(response: httpx.Response) -> ApiProblem:
    try:
        problem = response.json()
        detail, errors = str(problem["detail"]), problem.get("errors") or []
    except (ValueError, KeyError, TypeError):
        detail, errors = response.reason_phrase, []
    return ApiProblem(response.status_code, detail, errors)


def _is_temporary(error: BaseException) -> bool:
    if isinstance(error, ApiProblem):
        return error.status == httpx.codes.SERVICE_UNAVAILABLE
    return isinstance(error, ServiceError)
