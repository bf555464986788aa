"""What the events of a story say in words, and what is left as it was written."""

import pytest

from prepaid_pipeline.language.english import grouped
from prepaid_pipeline.process.events import shown, what


@pytest.mark.parametrize(
    ("event", "told", "said"),
    [
        ("service_plan_processing", "Pending -> Processing", "Pending to Processing"),
        ("service_plan_opened", "Pending (renewal)", "Pending (renewal)"),
        (
            "task_opened",
            "task 7: quality_follow_up for customer_success, due on 2026-11-09",
            "task 7: quality follow up for customer success, due on 2026-11-09",
        ),
        (
            "task_decided",
            "Open -> approved (payment_verification)",
            "Open to approved (payment verification)",
        ),
        ("task_first_approved", "Open -> Open (payment_refund)", "Open (payment refund)"),
        # Names of people are no codes.
        (
            "task_reassigned",
            "test_ana -> test_ben (quality_check)",
            "test_ana to test_ben (quality check)",
        ),
        ("task_reassigned", "test_ana -> (quality_check)", "was test_ana (quality check)"),
        ("task_reassigned", "test_ben (quality_check)", "test_ben (quality check)"),
        ("task_assigned", "task 7: to test_ben (on_leave)", "task 7: to test_ben (on_leave)"),
        ("email_sent", "pending -> sent (payment_reminder)", "pending to sent (payment reminder)"),
        (
            "email_ordered",
            "activation_confirmation to an_na@example.com: sent",
            "activation confirmation to an_na@example.com: sent",
        ),
        (
            "hold_placed",
            "no_price There is no price in JPY: 120000.00 EUR.",
            "no price: There is no price in JPY: 120,000.00 EUR.",
        ),
        ("hold_placed", "no_price", "no price"),
        ("hold_released", "no_price -> released (a_b -> 1234.50)", "no price (a_b -> 1234.50)"),
        (
            "transaction_assigned",
            "parked -> (to invoice INV-2026-000001) see a_note",
            "was parked (to invoice INV-2026-000001) see a_note",
        ),
        (
            "transaction_parked",
            "parked (paid 1234.50, invoiced 10.73)",
            "parked (paid 1,234.50, invoiced 10.73)",
        ),
        # A provider's reference stays as it is, whatever it looks like.
        (
            "payment_record",
            "pi_12345.67 Success 12345.67 EUR for INV-2026-000001",
            "pi_12345.67 Success 12,345.67 EUR for INV-2026-000001",
        ),
        ("payment_record", "20261102 Success -5000 JPY", "20261102 Success \u22125,000 JPY"),
        ("credit_note_issued", "(CN-2026-000001 over 1234 JPY)", "(CN-2026-000001 over 1,234 JPY)"),
        ("term_cut", "2026-12-02 -> 2026-11-20", "2026-12-02 to 2026-11-20"),
        (
            "cancellation_requested",
            "2026-12-02 (as_agreed) 1234.50",
            "2026-12-02 (as_agreed) 1234.50",
        ),
        (
            "sign_off",
            "task 7: approved (page 2026.11; a_b)",
            "task 7: approved (page 2026.11; a_b)",
        ),
        ("payment_record", "", ""),
        ("payment_record", None, ""),
    ],
)
def test_in_words(event: str, told: str | None, said: str) -> None:
    assert what(event, told) == said


def test_an_event_is_not_changed_where_it_is_kept() -> None:
    stored = {"at": 1, "event": "invoice_paid", "actor": "a_b", "what": "Open -> Paid (INV-1)"}
    told = shown(stored)
    assert told == {
        "at": 1,
        "event": "invoice paid",
        "actor": "a_b",
        "what": "Open to Paid (INV-1)",
    }
    assert stored["what"] == "Open -> Paid (INV-1)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("paid 1325.00, invoiced 1324.00", "paid 1,325.00, invoiced 1,324.00"),
        ("paid 1000000.5.", "paid 1,000,000.5."),
        ("over 120000 JPY", "over 120,000 JPY"),
        ("(over -1234.50 EUR)", "(over \u22121,234.50 EUR)"),
        # None of these is an amount.
        ("task 4711 in 2026, INV-2026-000001 of 2026-11-02", None),
        ("pi_12345.67 at 1234.5.6.7 or x1234.50", None),
        ("11.90 and 999.99", None),
    ],
)
def test_amounts_in_a_sentence(text: str, said: str | None) -> None:
    assert grouped(text) == (said or text)
