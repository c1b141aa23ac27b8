"""The standard services beside fedstep's own, asked as any gRPC tool asks them."""

from pathlib import Path

import grpc.aio
from e2e.inside import inside
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc


async def test_health_says_serving(tmp_path: Path) -> None:
    async with inside(tmp_path) as host, grpc.aio.insecure_channel(host.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "fedstep.v1.FleetService", "fedstep.v1.RunService", "fedstep.v1.StudyService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, service


async def test_reflection_lists_the_services_and_describes_them(tmp_path: Path) -> None:
    async with inside(tmp_path) as host, grpc.aio.insecure_channel(host.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(timeout=10)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = {service.name for service in (await call.read()).list_services_response.service}
        question = reflection_pb2.ServerReflectionRequest(file_containing_symbol="fedstep.v1.FleetService")
        await call.write(question)
        described = (await call.read()).file_descriptor_response.file_descriptor_proto
        await call.done_writing()
    assert names >= {
        "fedstep.v1.FleetService",
        "fedstep.v1.RunService",
        "fedstep.v1.StudyService",
        "grpc.health.v1.Health",
    }
    assert any(b"PushUpdate" in file for file in described)
