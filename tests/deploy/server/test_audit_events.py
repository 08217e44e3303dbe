"""What is written of refusals, and how many."""

from visavis.deploy.server.audit_events import RefusalBudget


def test_the_budget_of_refusals_forgets_old_addresses():
    budget = RefusalBudget(2, addresses=3)
    assert [budget.take("a") for _ in range(4)] == [0, 0, None, None]
    assert [budget.take(address) for address in "bcde"] == [0, 0, 0, 0]
    assert list(budget.rest()) == [("a", 2)]
    assert list(budget.rest(everything=True)) == []
