"""`groundup studio`: one page to use a model, to look inside of it, and to watch it learn."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from groundup.core.config import Config, setting
from groundup.core.console import Console, print_now
from groundup.core.errors import ConfigError, DataError

PASSWORD_VARIABLE = "GROUNDUP_PASSWORD"

EXAMPLE = "groundup studio runs --port 8080"


class StudioConfig(Config):
    """What to show, and to whom."""

    home: Path = setting(Path("runs"), help="runs and models, one run, or one model", positional=True)
    host: str = setting("127.0.0.1", help="address to listen on; beyond this machine a password is needed", flag=True)
    port: int = setting(8080, help="0 takes one that is free", flag=True, ge=0, le=65535)
    password: str | None = setting(
        None, help=f"asked of browsers, with any name; better: the variable {PASSWORD_VARIABLE}", flag=True, repr=False
    )
    recipes: Path = setting(Path("recipes"), help="directory of recipes to show besides the bundled ones", flag=True)
    apps: Path | None = setting(None, help="folder with applications of your own", flag=True)
    device: str | None = setting(None, help="cpu, cuda, ...; by default a GPU where there is one", flag=True)


def run(
    config: StudioConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> None:
    """Show the page until SIGINT or SIGTERM; runs that were started from it end then, as Ctrl-C would end them.

    Args:
        on_text: takes the JSON.
        json_lines: give it one JSON object, once browsers can connect: its url.

    Raises:
        DataError: nothing there to show.
        ConfigError: a password is missing.
        ResourceError: the address is not free.
    """
    import torch

    from groundup.apps import open_catalog
    from groundup.apps.serving import ServedApps
    from groundup.hub.resolve import open_chat_model
    from groundup.serve import RequestGuard, Server, bind, is_loopback, url_of
    from groundup.studio import Home, Jobs, Shelf, build_studio

    console = console or Console()
    password = config.password or os.environ.get(PASSWORD_VARIABLE) or None
    if config.home.exists() and not config.home.is_dir():
        raise DataError(f"{config.home}: a file", rule="HOME is a directory", fix="Give one of runs, or of a model.")
    # A training that runs beside wants the cores: what is shown of it may wait, it should not.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    with bind(config.host, config.port) as bound:
        loopback = is_loopback(bound)
        if not loopback and password is None:
            raise ConfigError(
                f"host = {config.host}",
                rule="others can reach this address, so the page needs a password",
                fix=f"Set the environment variable {PASSWORD_VARIABLE}, or leave --host out to show this machine only.",
            )
        home = Home(config.home, config.recipes)
        shelf = Shelf(home, lambda path: open_chat_model(path, config.device, console))
        jobs = Jobs(home.runs_directory)

        def say_ready() -> None:
            url = f"{url_of(bound)}/studio/"
            console.note(f"The Studio of {config.home}: {url}")
            console.note("Ctrl-C ends it.")
            if json_lines:
                on_text(json.dumps({"url": url}) + "\n")

        app = build_studio(home, shelf, jobs, ServedApps(open_catalog(config.apps, console)))
        guard = RequestGuard(app, api_key=password, loopback_only=loopback, browser=True)
        try:
            Server(guard, grace_seconds=1, abort=shelf.close, on_ready=say_ready).run([bound])
        finally:
            jobs.close()
            shelf.close()
    console.note("Stopped.")
