"""The handlers of the pages: each reads a visit and answers with a page or a redirect."""
