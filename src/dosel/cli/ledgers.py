"""Commands that prove what the ledgers say: verify, export, and the public key."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dosel.cli import common, output

commands = typer.Typer()
Keys = Annotated[
    Path | None,
    typer.Option(
        "--key", help="File of the trusted public keys; by default DOSEL_TRUSTED_KEYS or this installation's own key."
    ),
]


@commands.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="A file of `dosel export`; by default the data store.")] = None,
    key: Keys = None,
    kept: Annotated[
        Path | None,
        typer.Option(
            "--heads",
            help="A folder of signed heads that somebody kept; the chain must still have the entries that they cover.",
        ),
    ] = None,
    roots: Annotated[
        Path | None, typer.Option(help="File of the trusted root certificates; by default DOSEL_TRUSTED_ROOTS.")
    ] = None,
    json: output.AsJson = False,
) -> None:
    """Check every entry of the ledgers and every signature; exits 1 and names the first one that is wrong."""
    from dosel.certificates import Roots
    from dosel.registry import ledger_verification
    from dosel.registry.heads import Heads
    from dosel.signing import read_keys, trusted_keys

    settings = common.load_settings()
    keys = read_keys(key) if key else trusted_keys(settings)
    if file is None:
        from dosel.db.engine import connect

        heads = Heads.opened(settings).all()
        ledgers = ledger_verification.read_ledgers(connect(settings.warehouse_url), heads)
    else:
        ledgers = ledger_verification.read_export(file)
    if kept is not None:
        ledgers = ledgers._replace(heads=[*ledgers.heads, *Heads.in_folder(kept).all()])
    known = Roots.read(roots) if roots else Roots.of(settings)
    found = ledger_verification.verify(ledgers, keys, known, exported=file is not None)
    if json:
        output.write_json((found,))
        raise typer.Exit(1 if found.first_problem else 0)
    console = output.console()
    if found.problem:
        console.print(f"[red bold]wrong:[/] {escape(found.problem)}")
        raise typer.Exit(1)
    for sentence in found.unsigned:
        console.print(f"[red bold]wrong:[/] {escape(sentence)}")
    if found.unsigned:
        raise typer.Exit(1)
    removed = f", {found.removed:,} removals by `dosel reset`" if found.removed else ""
    console.print(f"{found.entries:,} entries are right: {found.rows:,} rows of the ledgers{removed}")
    console.print(f"{found.signed_versions:,} versions have a signature of a trusted key")
    for sentence in found.untrusted:
        console.print(f"[yellow]{escape(sentence)}[/]")
    if found.last_signed == found.entries:
        console.print(f"{found.heads:,} signed heads; the newest covers all entries")
    elif found.heads:
        console.print(
            f"{found.heads:,} signed heads; the newest covers the entries up to {found.last_signed:,}, and none "
            f"covers the {found.entries - found.last_signed:,} entries after it yet"
        )
    else:
        console.print("[yellow]no signed head: nothing outside the data store covers the entries[/]")


@commands.command()
def sign(
    name: Annotated[str | None, typer.Argument(help="One model or use case; all if left out.")] = None,
    entries: Annotated[
        bool,
        typer.Option(
            "--entries", help="Also sign entries that came after the first signed one; look at each of them before."
        ),
    ] = False,
) -> None:
    """Sign versions and entries that an older dosel wrote, or whose key is no longer trusted; run it after an update.

    The ledgers must be right, and a version's files must match its manifest.
    """
    from dosel.certificates import Roots
    from dosel.db.engine import connect
    from dosel.errors import DoselError
    from dosel.pipeline import bound_mlflow_requests
    from dosel.registry import ledger_verification
    from dosel.registry.heads import Heads
    from dosel.registry.registry import Registry
    from dosel.signing import trusted_keys
    from dosel.usecases import ALL, of_model

    settings = common.load_settings()
    bound_mlflow_requests()
    engine = connect(settings.warehouse_url)
    ledgers = ledger_verification.read_ledgers(engine, Heads.opened(settings).all())
    if problem := ledger_verification.verify(ledgers, trusted_keys(settings), Roots.of(settings)).problem:
        raise DoselError(f"nothing is signed, since the ledgers are wrong: {problem}")
    registry = Registry.opened(settings, engine)
    signed_rows, left = registry.ledger.sign_older(entries)
    for row in signed_rows:
        output.line(f"{row}: signed")
    for row in left:
        output.note(
            f"not signed: {row} came after signed entries, so no older dosel wrote it. If you know that it is right, "
            "for example since you revoked its key, run `dosel sign --entries`"
        )
    for model in [of_model(name).model_name] if name else [use_case.model_name for use_case in ALL]:
        for version in registry.versions(model):
            if registry.manifest(version) is None:
                continue
            try:
                signed = registry.sign(version)
            except DoselError as error:
                output.note(f"not signed: {error}")
            else:
                if signed:
                    registry.ledger.note(model, f"{common.actor()} signed the files of version {version.version}")
                output.line(f"{model} version {version.version}: {'signed' if signed else 'was signed before'}")


@commands.command()
def export(file: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write the ledgers, their chain and its signed heads to a file, for `dosel verify FILE` on another machine."""
    from dosel.db.engine import connect
    from dosel.registry import ledger_verification
    from dosel.registry.heads import Heads, publish

    settings = common.load_settings()
    engine = connect(settings.warehouse_url)
    publish(engine, settings)
    ledgers = ledger_verification.read_ledgers(engine, Heads.opened(settings).all())
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(f"{line}\n" for line in ledger_verification.export(ledgers))
    typer.echo(
        f"{file}: {len(ledgers.entries):,} entries. Elsewhere: dosel verify {file.name} --key PUBLIC.pem, with the key "
        "of `dosel public-key`",
        err=True,
    )


@commands.command("entry-key")
def entry_key(file: Annotated[Path, typer.Argument(help="The file to write, which only you may read.")]) -> None:
    """Make a key for DOSEL_ENTRY_KEY, with which a process without the signing key adds entries to the ledgers."""
    from dosel.entry_signatures import write_entry_key

    made = write_entry_key(common.load_settings().model_copy(update={"entry_key": str(file)}))
    output.note(f"{file}: a new key" if made else f"{file} has a key of the present signing key already")


@commands.command("public-key")
def public_key(
    request: Annotated[
        str | None,
        typer.Option(
            help="Print a certificate signing request (CSR) with this name instead, for the key that signs versions."
        ),
    ] = None,
) -> None:
    """Print the trusted keys, as a file for `dosel verify --key`."""
    from dosel import certificates
    from dosel.signing import Keys, trusted_keys

    if request:
        typer.echo(certificates.request(Keys(common.load_settings()).signing(), request).decode(), nl=False)
        return
    for key in trusted_keys(common.load_settings()).values():
        typer.echo(key.pem().decode(), nl=False)
