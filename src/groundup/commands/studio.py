"""`groundup studio`: a web page to chat with models, inspect them, and watch training."""

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
    """Settings of the web server of `groundup studio`."""

    directory: Path = setting(Path("runs"), help="run, model, or directory of runs or models", positional=True)
    host: str = setting("127.0.0.1", help="address to listen on; a public address requires a password", flag=True)
    port: int = setting(8080, help="port to listen on; 0 chooses a free port", flag=True, ge=0, le=65535)
    password: str | None = setting(
        None,
        help=f"login password, for any user name; default: environment variable {PASSWORD_VARIABLE}",
        flag=True,
        repr=False,
    )
    recipes: Path = setting(Path("recipes"), help="directory of additional recipes", flag=True)
    apps: Path | None = setting(None, help="directory of additional applications", flag=True)
    device: str | None = setting(None, help="device, such as cpu or cuda; default: a GPU if available", flag=True)


def run(
    config: StudioConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> None:
    """Serve the Studio until the process receives SIGINT or SIGTERM.

    On either signal, all runs that were started in the Studio are interrupted.

    Args:
        config: Settings of the server.
        console: Console for messages.
        on_text: Function that writes the JSON object.
        json_lines: Whether to write a JSON object with the key "url" when the server is ready.

    Raises:
        DataError: `directory` is a file.
        ConfigError: The address is public, but no password is set.
        ResourceError: The port is in use.
    """
    import torch

    from groundup.apps import open_catalog
    from groundup.apps.serving import ServedApps
    from groundup.hub.loading import open_chat_model
    from groundup.serve import RequestGuard, Server, bind, is_loopback, url_of
    from groundup.studio import Jobs, StudioModels, Workspace, build_studio

    console = console or Console()
    password = config.password or os.environ.get(PASSWORD_VARIABLE) or None
    if config.directory.exists() and not config.directory.is_dir():
        raise DataError(str(config.directory), rule="not a directory", fix="Give a directory of runs or a model.")
    # Inference uses half of the cores, because training runs that the user starts in the Studio need the other half.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    with bind(config.host, config.port) as bound:
        loopback = is_loopback(bound)
        if not loopback and password is None:
            fix = f"Set the environment variable {PASSWORD_VARIABLE}, or omit --host to serve this machine only."
            raise ConfigError(f"host = {config.host}", rule="a public address requires a password", fix=fix)
        workspace = Workspace(config.directory, config.recipes)
        models = StudioModels(workspace, lambda path: open_chat_model(path, config.device, console))
        jobs = Jobs(workspace.runs_directory)

        def report_ready() -> None:
            url = f"{url_of(bound)}/studio/"
            console.note(f"Studio for {config.directory}: {url}")
            console.note("Press Ctrl-C to stop.")
            if json_lines:
                on_text(json.dumps({"url": url}) + "\n")

        app = build_studio(workspace, models, jobs, ServedApps(open_catalog(config.apps, console)))
        guard = RequestGuard(app, api_key=password, loopback_only=loopback, browser=True)
        try:
            Server(guard, grace_seconds=1, abort=models.close, on_ready=report_ready).run([bound])
        finally:
            jobs.close()
            models.close()
    console.note("Stopped.")
