"""A small real client app, and messages for it: numbers in, numbers out."""

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

FACTORS = {"a": 2, "b": 3, "c": 5, "d": 7}
NODE_CONFIGS = [{"site-name": name, "factor": str(factor)} for name, factor in FACTORS.items()]
ALL_SCALED = {name: [factor, 2 * factor, 3 * factor] for name, factor in FACTORS.items()}


def build_app() -> ClientApp:
    """Return an app that multiplies by the site's factor, and misbehaves on request."""
    app = ClientApp()
    app.train()(scale)
    app.train("fail")(fail)
    app.train("interrupt")(interrupt)
    app.train("nothing")(nothing)
    app.train("unsendable")(unsendable)
    app.train("sleep")(sleep)
    calls = 0

    @app.query("process")
    def process(message: Message, context: Context) -> Message:
        import torch

        nonlocal calls
        calls += 1
        seen = {"pid": os.getpid(), "threads": torch.get_num_threads(), "calls": calls}
        return Message(RecordDict({"process": ConfigRecord(seen)}), reply_to=message)

    return app


def scale(message, context):
    numbers = message.content["state"]["flat"].numpy()
    numbers *= float(context.node_config["factor"])  # in place, as careless code does
    message.content["state"]["flat"] = Array(numbers)
    reply = {"state": message.content["state"], "node": ConfigRecord({"id": context.node_id})}
    return Message(RecordDict(reply), reply_to=message)


def fail(message, context):
    if context.node_config["site-name"] == "b":
        raise FileNotFoundError("/srv/patients/train.jsonl")
    return scale(message, context)


def interrupt(message, context):
    raise KeyboardInterrupt


def nothing(message, context):
    return None


def unsendable(message, context):
    reply = scale(message, context)
    reply.content["state"].__dict__["extra"] = (item for item in "no generator can be pickled")
    return reply


def sleep(message, context):
    """Site b leaves its process id in a numbered file and sleeps, the first few times."""
    request = message.content["sleep"]
    if context.node_config["site-name"] == "b":
        folder = Path(request["folder"])
        attempt = len(list(folder.glob("*.pid"))) + 1
        (folder / "pid.part").write_text(str(os.getpid()))
        (folder / "pid.part").replace(folder / f"{attempt}.pid")
        if attempt <= request["times"]:
            time.sleep(request["seconds"])
    return scale(message, context)


def messages(grid, kind="train", ttl=None, **sleep):
    """Return one message to each node, all with the same three numbers (and the same record object)."""
    content = RecordDict({"state": ArrayRecord({"flat": Array(np.array([1, 2, 3], dtype=np.float32))})})
    if sleep:
        content["sleep"] = ConfigRecord(sleep)
    return [Message(content, node_id, kind, ttl=ttl) for node_id in grid.get_node_ids()]


def numbers_by_site(grid, replies):
    """Return the numbers of the good replies and the errors of the others, by the site's name."""
    names = {node.node_id: node.name for node in grid.get_nodes()}
    return {
        names[reply.metadata.src_node_id]: (reply.error.code, reply.error.reason)
        if reply.has_error()
        else reply.content["state"]["flat"].numpy().tolist()
        for reply in replies
    }
