"""The checks of `fedstep doctor`, told one by one."""

from fedstep.client.doctor.checks import Checkup, Found


async def test_every_check_is_named_before_it_is_made() -> None:
    told: list[str] = []

    async def look() -> Found[int]:
        told.append("look")
        return Found(1, "there is one")

    checkup = Checkup(lambda finding: told.append(f"{finding.check}: {finding.text}"), lambda check: told.append(check))
    await checkup.run("data", look)
    assert told == ["data", "look", "data: there is one"]
