"""Flower's object store, in which no site can spoil another's object, or the coordinator's, by registering it first.

Flower registers a message as a tree of objects, each named by its hash, before their contents come, and refuses to
register an object a second time with other children. Whoever can guess an object (a record of the next round, an empty
one) could say that something hangs below it, and nobody could send it any more. Here all objects of a message hang
directly below its head, which nobody can guess, since it holds a random number; whoever reads a message takes what
hangs below an object from its content.
"""

from __future__ import annotations

from typing import Any

from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import is_valid_sha256_hash, iterate_object_tree
from flwr.supercore.object_store.object_store import NoObjectInStoreError
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema.objectstore_models import ObjectChild, RunObject, StoredObject
from flwr.supercore.utils import uint64_to_int64
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session


class FlatObjectStore(SqlObjectStore):
    """Keeps, of each message, only which objects belong to it."""

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """Register the objects of a message and return those whose content is missing.

        Raises:
            ValueError: One is not named by a hash.
        """
        ids = list(dict.fromkeys(node.object_id for node in iterate_object_tree(object_tree)))
        if invalid := [object_id for object_id in ids if not is_valid_sha256_hash(object_id)]:
            raise ValueError(f"{len(invalid)} objects are not named by a hash")
        with self._mutation_session() as session:
            new = {object_id for object_id in ids if self._register(session, run_id, object_id)}
            if object_tree.object_id in new:
                self._join(session, object_tree.object_id, [i for i in ids if i != object_tree.object_id])
            here = select(StoredObject.object_id).where(StoredObject.object_id.in_(ids), StoredObject.is_available == 1)
            available = set(session.scalars(here))
        return [object_id for object_id in ids if object_id not in available]

    def get_object_tree(self, object_id: str) -> ObjectTree:
        """Return which objects belong to a message.

        Raises:
            NoObjectInStoreError: There is no such message.
        """
        with self.session() as session:
            if session.get(StoredObject, object_id) is None:
                raise NoObjectInStoreError(f"Object {object_id} was not pre-registered.")
            below = session.scalars(select(ObjectChild.child_id).where(ObjectChild.parent_id == object_id))
            return ObjectTree(object_id=object_id, children=[ObjectTree(object_id=child) for child in below])

    def _register(self, session: Session, run_id: int, object_id: str) -> bool:
        """Make room for an object's content; return whether it was unknown."""
        row: Any = self.dialect_insert(StoredObject).values(
            object_id=object_id, content=b"", is_available=0, ref_count=0
        )
        unless_known = row.on_conflict_do_nothing(index_elements=[StoredObject.object_id])
        is_new = session.execute(unless_known.returning(StoredObject.object_id)).first() is not None
        of_run: Any = self.dialect_insert(RunObject).values(run_id=uint64_to_int64(run_id), object_id=object_id)
        session.execute(of_run.on_conflict_do_nothing())
        return is_new

    def _join(self, session: Session, head: str, below: list[str]) -> None:
        """Note what belongs to a new head, so that it is deleted with it."""
        if below:
            session.execute(insert(ObjectChild), [{"parent_id": head, "child_id": child} for child in below])
            session.execute(
                update(StoredObject)
                .where(StoredObject.object_id.in_(below))
                .values(ref_count=StoredObject.ref_count + 1)
            )
