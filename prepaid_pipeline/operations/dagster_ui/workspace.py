"""Dagster's own server and workspace, in which each request has its visitor's rights and name.

This leans on parts of Dagster that are not promised; tests/operations/dagster_ui/test_dagster.py
says when one of them moves.
"""

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster_webserver.webserver import DagsterWebserver
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from prepaid_pipeline.operations.dagster_ui.guard import may_not
from prepaid_pipeline.operations.dagster_ui.visitors import VISITOR, Visitor
from prepaid_pipeline.operations.service.dagster_storage import USER_TAG, launched_by

_visitor: ContextVar[Visitor | None] = ContextVar("visitor", default=None)


class RequestContext(WorkspaceRequestContext):
    """One request's: whatever is launched within it has the visitor's name."""

    visitor: Visitor | None = None
    _before: tuple[Token[Visitor | None], Token[str | None]] | None = None

    def __enter__(self) -> Self:
        name = self.visitor.name if self.visitor else None
        self._before = _visitor.set(self.visitor), launched_by.set(name)
        return super().__enter__()

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(exception_type, exception_value, traceback)
        if self._before is not None:
            visitor, name = self._before
            _visitor.reset(visitor)
            launched_by.reset(name)

    def get_viewer_tags(self) -> dict[str, str]:
        return {USER_TAG: self.visitor.name} if self.visitor else {}

    def get_reporting_user_tags(self) -> dict[str, str]:
        return self.get_viewer_tags()


class Workspace(WorkspaceProcessContext):
    """The process's: a request that the guard has not seen may change nothing."""

    def create_request_context(self, source: object | None = None) -> RequestContext:
        # Without a source: a reload makes one within the request that asked for it.
        visitor = (
            source.scope.get(VISITOR) if isinstance(source, HTTPConnection) else _visitor.get()
        )
        context = RequestContext(
            instance=self.instance,
            current_workspace=self.get_current_workspace(),
            process_context=self,
            version=self.version,
            source=source,
            read_only=visitor is None or not visitor.may_write,
        )
        context.visitor = visitor
        return context


class Webserver(DagsterWebserver[Workspace, RequestContext]):
    """Dagster's routes and pages, behind our second look at what changes something."""

    async def execute_graphql_request(
        self,
        request: Request,
        query: str,
        variables: dict[str, Any] | None,
        operation_name: str | None,
    ) -> Any:
        refusal: Response | None = may_not(request, request.scope[VISITOR], query)
        if refusal is not None:
            return refusal
        return await super().execute_graphql_request(request, query, variables, operation_name)
