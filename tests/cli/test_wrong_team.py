"""Whoever is in the wrong team for a command is told which one is the right one, in a sentence."""

from collections.abc import Iterator

import click
import pytest

from prepaid_pipeline.cli.main import prepaid as root
from tests.cli.conftest import Prepaid
from tests.world import World

# What each command that acts for a person is given after its name, and what leadership may not.
COMMANDS = {
    "tasks approve": (["{task}"], "decide on payments: not in finance"),
    "tasks approve --all-agreeing": ([], "decide on payments: not in finance"),
    "tasks reject": (["{task}", "--note", "x"], "decide on payments: not in finance"),
    "tasks reassign": (["{task}"], "hand over tasks: not in finance or customer_success"),
    "held release": (
        ["{plan}", "--note", "x"],
        "release holds: not in customer_success or engineering or finance",
    ),
    "payments assign": (["1", "X", "--note", "x"], "assign payments: not in finance"),
    "invoices void": (["{invoice}", "--note", "x"], "void invoices: not in finance"),
    "invoices reissue": (["{invoice}", "--note", "x"], "void invoices: not in finance"),
    "mails resend": (["1"], "resend emails: not in customer_success or engineering"),
    "mails settle": (
        ["1", "--note", "x"],
        "settle emails: not in customer_success or engineering",
    ),
    "mails readdress": (
        ["1", "--to", "a@example.com"],
        "change a customer's address: not in customer_success",
    ),
    "subscriptions cancel": (["{plan}", "--note", "x"], "cancel plans: not in customer_success"),
    "subscriptions change": (
        ["{subscription}", "--to", "plan-2", "--note", "x"],
        "change plans: not in customer_success or finance",
    ),
    "customers erase": (
        ["C1", "--reason", "x"],
        "erase a customer: not in customer_success or engineering",
    ),
}


def acting(group: click.Group, path: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from acting(command, f"{path}{name} ")
        elif any("--as" in option.opts for option in command.params):
            yield f"{path}{name}"


def test_every_command_that_acts_for_somebody_is_here() -> None:
    context = click.Context(root)
    found = set()
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        if isinstance(command, click.Group):
            found |= set(acting(command, f"{name} "))
    assert found - {name.partition(" --")[0] for name in COMMANDS} == set()


@pytest.fixture
def named(world: World, prepaid: Prepaid) -> dict[str, object]:
    world.tax_rate("0.0725")
    world.due_renewal()
    (plan,) = world.open()
    world.pay(plan)
    assert prepaid("user", "add", "cli_leader", "--team", "leadership").code == 0
    return {
        "plan": plan,
        "task": world.task(plan),
        "invoice": world.invoice(plan),
        "subscription": world.sql("SELECT subscription_ref FROM prepaid.subscriptions"),
    }


def test_a_sentence(prepaid: Prepaid, named: dict[str, object]) -> None:
    for command, (arguments, refusal) in COMMANDS.items():
        filled = [argument.format(**named) for argument in arguments]
        done = prepaid(*command.split(), *filled, "--as", "cli_leader")
        assert (done.code, done.out) == (1, ""), command
        assert done.err.startswith(f"prepaid: cli_leader may not {refusal}"), done.err
        assert "permission denied" not in done.err


def test_who_is_nobody_here(world: World, prepaid: Prepaid, named: dict[str, object]) -> None:
    """In a team on this server, but not in this database; and then confirmed."""
    world.sql("DO $$ BEGIN CREATE ROLE cli_stranger; EXCEPTION WHEN OTHERS THEN NULL; END $$")
    world.sql("GRANT finance TO cli_stranger")
    approve = ("tasks", "approve", named["task"], "--as", "cli_stranger")
    assert prepaid(*approve).err == (
        "prepaid: 'cli_stranger' is in finance on this server, but is no person of this database:"
        " confirm them with 'prepaid user adopt cli_stranger'\n"
    )
    adopted = prepaid("user", "adopt", "cli_stranger", "cli_leader")
    assert (adopted.code, adopted.err) == (0, "")
    assert adopted.out == "cli_stranger, cli_leader may read and decide here\n"
    assert prepaid(*approve).out == "1 approved by cli_stranger\n"
    assert world.rows(
        "SELECT detail, after FROM prepaid.audit_log WHERE event = 'user_adopted' ORDER BY audit_id"
    ) == [("cli_stranger", "finance"), ("cli_leader", "leadership")]

    assert prepaid("user", "disable", "cli_stranger").out == (
        "cli_stranger is disabled; all their sessions have ended\n"
    )
    assert prepaid(*approve).err == (
        "prepaid: cli_stranger is disabled: 'prepaid user enable cli_stranger' undoes that\n"
    )
    nobody = prepaid("user", "adopt", "cli_leader", "no such person")
    assert (nobody.code, nobody.out) == (1, "")
    assert "'no such person' is in no team on this server" in nobody.err
    assert prepaid("user", "adopt").code == 2
