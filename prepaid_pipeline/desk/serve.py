"""The desk's own process: the web server."""

import logging
import os
import socket
import sys
from collections.abc import Mapping

import uvicorn
from sqlalchemy import URL
from uvicorn.config import LOGGING_CONFIG

from prepaid_pipeline import logs
from prepaid_pipeline.database import connections
from prepaid_pipeline.desk.app import build
from prepaid_pipeline.desk.login import own_login
from prepaid_pipeline.errors import PrepaidError, SettingError
from prepaid_pipeline.settings.desk import DeskSettings, load
from prepaid_pipeline.settings.load import Settings
from prepaid_pipeline.settings.load import load as load_settings

_OFF = "PREPAID_DESK_PORT is off: set it to a port to start the sign-off desk"


def require_free_port(desk: DeskSettings) -> None:
    """Raise SettingError for a port that is taken or an address that is not this machine's."""
    if desk.port is None:
        raise SettingError(_OFF)
    family = socket.AF_INET6 if ":" in desk.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((desk.host, desk.port))
        except OSError as error:
            raise SettingError(
                f"Port {desk.port} on {desk.host} cannot be used for the sign-off desk:"
                f" {error.strerror}. Stop what listens there, or set PREPAID_DESK_PORT to another"
                " one (off: no desk)."
            ) from error


def run(settings: Settings, desk: DeskSettings, login: URL) -> None:
    """Serve until the process is asked to stop (SIGINT, SIGTERM).

    ``login`` is the desk's own, which ``login.own_login`` has checked. Raises SettingError for
    PREPAID_DESK_PORT=off.
    """
    if desk.port is None:
        raise SettingError(_OFF)
    engine = connections.engine_for(login)
    try:
        app = build(engine, settings, desk)
        uvicorn.run(
            app,
            host=desk.host,
            port=desk.port,
            ssl_certfile=desk.tls_cert,
            ssl_keyfile=str(desk.tls_key) if desk.tls_key else None,
            proxy_headers=bool(desk.proxy),
            forwarded_allow_ips=",".join(desk.proxy) or None,
            server_header=False,
            date_header=True,
            log_level="info",
            # Our own handlers where they are set up (main): one line per event, as all processes.
            log_config=None if logging.getLogger().handlers else LOGGING_CONFIG,
            # A request's query can hold a customer's name: no access log.
            access_log=False,
            timeout_graceful_shutdown=5,
        )
    finally:
        engine.dispose()


def environ(settings: Settings, desk: DeskSettings) -> Mapping[str, str]:
    """What a process that works elsewhere needs: the login, and its files named absolutely."""
    files = {
        "PREPAID_DESK_TLS_CERT": desk.tls_cert,
        "PREPAID_DESK_TLS_KEY": desk.tls_key,
    }
    return {
        "PREPAID_DESK_DATABASE_URL": own_login(settings, desk).render_as_string(
            hide_password=False
        ),
        **{name: str(path) for name, path in files.items() if path is not None},
    }


def answers(desk: DeskSettings) -> bool:
    """Whether something accepts connections at the address of the desk."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(desk.host, desk.host)
    assert desk.port is not None
    try:
        with socket.create_connection((host, desk.port), timeout=5):
            return True
    except OSError:
        return False


def main() -> int:
    """Serve with the settings of the environment; for ``prepaid up``, which made the login."""
    try:
        settings, desk = load_settings(os.environ), load(os.environ)
        logs.configure_service(settings)
        logging.getLogger("uvicorn.error").setLevel(logging.INFO)
        login = own_login(settings, desk)
        run(settings, desk, login)
    except PrepaidError as error:
        print(f"prepaid desk: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
