"""Which teams see which pages, and the entries of the bar at the top."""

from dataclasses import dataclass

from prepaid_pipeline.teams import Team

ANYBODY = tuple(Team)
ON_PAYMENTS = (Team.FINANCE, Team.ENGINEERING)
ON_FEATURES = (Team.CUSTOMER_SUCCESS, Team.ENGINEERING)
DECIDERS = (Team.FINANCE, Team.CUSTOMER_SUCCESS, Team.ENGINEERING)

# Address, name and teams of each page in the bar.
BAR = (
    ("/", "Overview", DECIDERS),
    ("/payments", "Payments", ON_PAYMENTS),
    ("/parked", "Parked", ON_PAYMENTS),
    ("/refunds", "Refunds", ON_PAYMENTS),
    ("/concessions", "Prices", ON_PAYMENTS),
    ("/quality", "Quality checks", ON_FEATURES),
    ("/held", "Held plans", DECIDERS),
    ("/mails", "Emails", ON_FEATURES),
    ("/history", "Decisions", DECIDERS),
    ("/reports", "Reports", ANYBODY),
)


@dataclass(frozen=True)
class Site:
    """What pages say of the place they are part of. ``home`` is the path that all addresses begin
    with, ``start`` what its first page is called, and ``hint`` is for whoever cannot sign in.
    """

    title: str = "Sign-off desk"
    start: str = "the overview"
    home: str = ""
    bar: tuple[tuple[str, str, tuple[Team, ...]], ...] = BAR
    hint: str = ""
