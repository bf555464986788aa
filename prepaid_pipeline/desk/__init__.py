"""The sign-off desk: pages in which finance and customer success decide, under their own roles.

Nothing is decided here. Every page reads and every form acts in a transaction under the person's
own database role, so what a person may not do, the database refuses.
"""
