"""A server that plays Qdrant's part, for what a client sends."""

from __future__ import annotations

import json
from typing import Any

from providers.testing import RecordedRequest, Reply


class Qdrant:
    """Just so much of Qdrant's REST that the client's requests can be seen: points by id, a search that finds all."""

    def __init__(self) -> None:
        self.points: dict[str, dict[str, dict[str, Any]]] = {}

    def answer(self, request: RecordedRequest) -> Reply:
        parts = request.path.strip("/").split("/")
        body = json.loads(request.body) if request.body else {}
        name, rest = (parts[1], "/".join(parts[2:])) if len(parts) > 1 else ("", "")
        if not name:
            return self._ok({"collections": [{"name": name} for name in self.points]})
        if rest == "exists":
            return self._ok({"exists": name in self.points})
        if not rest and request.method == "PUT":
            if name in self.points:
                return Reply.json({"status": {"error": "Wrong input: Collection already exists!"}, "time": 0.0}, 409)
            self.points[name] = {}
            return self._ok(True)
        if name not in self.points:
            return Reply.json({"status": {"error": "Not found: Collection"}, "time": 0.0}, 404)
        if not rest and request.method == "DELETE":
            del self.points[name]
            return self._ok(True)
        points = self.points[name]
        if rest == "points" and request.method == "PUT":
            points.update({point["id"]: point for point in body["points"]})
        elif rest == "points":
            return self._ok([points[id] for id in body["ids"] if id in points])
        elif rest == "points/query":
            place = body["filter"]["must"][0]["match"]["value"]
            near = [point for point in points.values() if point["payload"]["place"] == place]
            return self._ok({"points": [{"version": 1, "score": 0.97, **point} for point in near]})
        elif rest == "points/payload":
            for id in points.keys() & set(body["points"]):
                points[id]["payload"].update(body["payload"])
        elif rest == "points/delete":
            for id in body["points"]:
                points.pop(id, None)
        elif rest == "points/scroll":
            return self._ok({"points": list(points.values()), "next_page_offset": None})
        return self._ok({"operation_id": 1, "status": "completed"})

    def _ok(self, result: object) -> Reply:
        return Reply.json({"result": result, "status": "ok", "time": 0.0})
