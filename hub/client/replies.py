"""Answer the questions of an answer with a function of the program."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from hub.client.failures import ConnectionCut, Refusal
from hub.messages import Body, Interrupt, InterruptResolved

QuestionHandler = Callable[[Interrupt], Any]  # returns the payload of the reply, or an awaitable of it


@attrs.define(eq=False)
class Replies:
    """Calls *on_question* for each question of an answer, in a task of its own, and sends what it returns.

    *resume* sends a reply. *fail* gets an error of *on_question* or of *resume*. A task is cancelled when its question
    is closed, because another client has replied.
    """

    on_question: QuestionHandler
    resume: Callable[[str, Any], Awaitable[None]]
    fail: Callable[[Exception], None]
    _tasks: dict[str, asyncio.Task[None]] = attrs.Factory(dict)  # by the id of the question

    def note(self, event: Body) -> None:
        """Take the next event of the answer."""
        if isinstance(event, Interrupt):
            self._tasks[event.id] = asyncio.create_task(self._reply(event))
        elif isinstance(event, InterruptResolved) and event.interruptId in self._tasks:
            self._tasks[event.interruptId].cancel()

    async def _reply(self, question: Interrupt) -> None:
        try:
            payload = self.on_question(question)
            if inspect.isawaitable(payload):
                payload = await payload
            await self._resume(question.id, payload)
        except Exception as error:
            self.fail(error)

    async def _resume(self, question_id: str, payload: Any) -> None:
        while True:
            try:
                return await self.resume(question_id, payload)
            except ConnectionCut:
                pass  # again over the next connection: if the hub has the reply, it refuses the second one
            except Refusal as refusal:
                if refusal.code == "already_resolved":
                    return
                raise

    async def close(self) -> None:
        """Cancel the tasks, and wait for them."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
