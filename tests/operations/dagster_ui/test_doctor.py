"""`prepaid doctor` on Dagster's UI: who gets in, who may change things, and a server without a guard."""

import pytest

from prepaid_pipeline.errors import PrepaidError
from prepaid_pipeline.operations.service import doctor
from prepaid_pipeline.people import accounts
from prepaid_pipeline.settings.load import Settings
from tests.desk.chromium import served
from tests.mail.conftest import free_port
from tests.operations.dagster_ui.conftest import HOME, House
from tests.operations.dagster_ui.test_attack import of_dagster_alone
from tests.operations.dagster_ui.test_links import TAKE_OVER
from tests.world import World


def test_who_gets_in(world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings.model_copy(update={"port": free_port()})

    def said() -> str:
        return doctor._dagster_ui(settings, world.engine)

    assert (
        said() == f"{HOME}, by one-time links (prepaid sign-in-link) until somebody has a password"
    )
    for name, team in (("test_ann", "finance"), ("test_eve", "engineering")):
        accounts.add(world.engine, name, team)
        world.sql("SELECT prepaid.set_disabled(:n, false)", n=name)
    world.sql(TAKE_OVER, n="test_ann")
    assert "nobody can start or stop anything" in said()
    world.sql(TAKE_OVER, n="test_eve")
    assert said() == f"{HOME}, with 1 of the team engineering who may change things"
    for name, value in (("ISSUER", "https://login.example.com"), ("CLIENT_ID", "x")):
        monkeypatch.setenv(f"PREPAID_OIDC_{name}", value)
    monkeypatch.setenv("PREPAID_OIDC_CLIENT_SECRET", "y")
    assert said() == f"{HOME}, people sign in at https://login.example.com"


def test_a_server_that_lets_anybody_in(house: House) -> None:
    port = free_port()
    settings = house.settings.model_copy(update={"port": port})
    with (
        served(of_dagster_alone(house), port),
        pytest.raises(PrepaidError, match="lets anybody in: a Dagster webserver that was started"),
    ):
        doctor._dagster_ui(settings, house.owner)
    with served(house.app(), port):
        assert HOME in doctor._dagster_ui(settings, house.owner)
