"""Which rank a process is: each launcher's variables, each missing one, and what is no launcher at all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treenail.adapters.launch import RankEnvironment, detect
from treenail.kernel import ConfigError

TORCH = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29512",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
SLURM = {  # srun --ntasks=7, on nodes of four and three tasks
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_NTASKS": "99",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_NODELIST": "gpu[01-99]",
    "SLURM_STEP_TASKS_PER_NODE": "4,3",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29512",
}
MVAPICH = {
    "MV2_COMM_WORLD_RANK": "3",
    "MV2_COMM_WORLD_SIZE": "4",
    "MV2_COMM_WORLD_LOCAL_RANK": "1",
    "MV2_COMM_WORLD_LOCAL_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29512",
}
MPICH = {
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
    "MPI_LOCALRANKID": "1",
    "MPI_LOCALNRANKS": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29512",
}
OF_MPI = RankEnvironment(3, 4, 1, 2, 1, "node0", 29512, "mpi")


@pytest.mark.parametrize("launcher", ["auto", "pytorch"])
def test_torchruns_variables_say_the_rank_and_that_its_agent_holds_the_store(launcher: str) -> None:
    assert detect(launcher, TORCH) == RankEnvironment(5, 8, 1, 4, 1, "node0", 29512, "pytorch", store_is_hosted=True)


def test_spawned_processes_have_the_same_variables() -> None:
    found = detect("spawn", TORCH)
    assert found is not None
    assert found.launcher == "spawn"
    assert found.rank == 5


def test_variables_are_read_back() -> None:
    environment = RankEnvironment(5, 8, 1, 4, 1, "node0", 29512, "pytorch", store_is_hosted=True)
    assert detect("auto", environment.variables()) == environment


@pytest.mark.parametrize("launcher", ["auto", "slurm"])
def test_sruns_variables_say_the_rank_of_the_step_and_not_of_the_job(launcher: str) -> None:
    found = detect(launcher, SLURM, port=29512)
    assert found == RankEnvironment(5, 7, 1, 3, 1, "gpu07", 29512, "slurm")


def test_a_slurm_step_on_one_node_meets_on_loopback() -> None:
    one_node = SLURM | {"SLURM_STEP_NODELIST": "gpu08", "SLURM_STEP_TASKS_PER_NODE": "7", "SLURM_NODEID": "0"}
    found = detect("slurm", one_node)
    assert found is not None
    assert found.one_machine
    assert found.master_addr == "127.0.0.1"


def test_slurm_jobs_of_one_node_have_ports_of_their_own_and_the_steps_ranks_agree() -> None:
    def port(job: int, step: int = 0, rank: int = 0) -> int:
        said = {"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step), "SLURM_PROCID": str(rank)}
        found = detect("slurm", SLURM | said)
        assert found is not None
        return found.master_port

    ports = [port(job) for job in range(4700, 4732)] + [port(4700, step) for step in range(1, 9)]
    assert len(set(ports)) == len(ports)
    assert all(1024 < each < 32768 for each in ports)
    assert len({port(4711, 0, rank) for rank in range(7)}) == 1


def test_a_port_of_the_environment_goes_before_a_derived_one_and_a_given_one_before_both() -> None:
    said = SLURM | {"MASTER_PORT": "23456"}
    found, given = detect("slurm", said), detect("slurm", said, port=12345)
    assert found is not None
    assert given is not None
    assert (found.master_port, given.master_port) == (23456, 12345)


@pytest.mark.parametrize("launcher", ["auto", "mpi"])
@pytest.mark.parametrize("variables", [OPEN_MPI, MVAPICH, MPICH], ids=["open-mpi", "mvapich", "mpich"])
def test_mpirun_is_recognised(variables: dict[str, str], launcher: str) -> None:
    assert detect(launcher, variables) == OF_MPI


def test_mpi_on_one_machine_needs_no_address() -> None:
    found = detect(
        "mpi",
        {name: value for name, value in OPEN_MPI.items() if name.startswith("OMPI")}
        | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"},
    )
    assert found is not None
    assert (found.master_addr, found.one_machine) == ("127.0.0.1", True)


@pytest.mark.parametrize(
    "inner",
    [TORCH, OPEN_MPI],
    ids=["torchrun as a task of srun", "mpirun, whose daemons are a step"],
)
def test_the_inner_launcher_goes_before_slurm(inner: dict[str, str]) -> None:
    assert detect("auto", SLURM | inner) == detect("auto", inner)


@pytest.mark.parametrize(
    ("variables", "what"),
    [
        ({}, "nothing"),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, "an sbatch script"),
        (SLURM | {"SLURM_STEP_ID": str(0xFFFF_FFFB)}, "a batch step"),
        (SLURM | {"SLURM_STEP_ID": str(0xFFFF_FFFA), "SLURM_STEP_NUM_TASKS": "1"}, "an interactive step of salloc"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, "srun --pty bash"),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}, "salloc's shell"),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, "a PMI library without a launcher"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_process_on_its_own_is_not_mistaken_for_a_rank(variables: dict[str, str], what: str) -> None:
    assert detect("auto", variables) is None


def test_launcher_none_looks_at_nothing() -> None:
    assert detect("none", TORCH) is None


@pytest.mark.parametrize(
    ("launcher", "variables", "needed"),
    [
        ("pytorch", TORCH, ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]),
        (
            "slurm",
            {name: value for name, value in SLURM.items() if name not in ("SLURM_NTASKS", "SLURM_NODELIST")},
            ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_JOB_ID", "SLURM_STEP_ID"],
        ),
        ("mpi", OPEN_MPI, [name for name in OPEN_MPI if name.startswith("OMPI") or name == "MASTER_ADDR"]),
        ("mpi", MPICH, ["PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"]),
    ],
    ids=["pytorch", "slurm", "open-mpi", "mpich"],
)
def test_each_missing_variable_is_named(launcher: str, variables: dict[str, str], needed: list[str]) -> None:
    for name in needed:
        for absent in ({}, {name: ""}):
            rest = {other: value for other, value in variables.items() if other != name} | absent
            with pytest.raises(ConfigError, match=rf"launcher '{launcher}' needs the environment variable {name};"):
                detect(launcher, rest)


def test_all_missing_variables_are_named_at_once() -> None:
    with pytest.raises(
        ConfigError, match=r"WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT; start with"
    ):
        detect("auto", {"RANK": "0"})


def test_slurm_asked_for_outside_of_a_step_says_srun() -> None:
    with pytest.raises(ConfigError, match=r"not a step of it.*start the ranks with srun"):
        detect("slurm", SLURM | {"SLURM_STEP_ID": str(0xFFFF_FFFB)})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"RANK": "one"}, "RANK: 'one' is no whole number"),
        ({"RANK": "-1"}, "RANK: '-1' is no whole number"),
        ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE: '2.0' is no whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE: a world of 0 processes"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE: a world of 0 processes"),
        ({"RANK": "8"}, "RANK is 8, but WORLD_SIZE is 8"),
        ({"LOCAL_RANK": "4"}, "LOCAL_RANK is 4, but LOCAL_WORLD_SIZE is 4"),
        ({"LOCAL_WORLD_SIZE": "9"}, r"this machine has 9 processes \(LOCAL_WORLD_SIZE\), but all together are 8"),
        ({"MASTER_PORT": "0"}, "there is no port 0"),
        ({"MASTER_PORT": "65536"}, "there is no port 65536"),
    ],
)
def test_a_wrong_number_is_an_error(changed: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        detect("pytorch", TORCH | changed)


def test_an_unknown_launcher_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no launcher 'slrum'; did you mean 'slurm'"):
        detect("slrum", {})


@pytest.mark.parametrize(
    ("nodes", "first", "tasks", "of_node_1"),
    [
        ("n1,n2", "n1", "2(x2)", 2),
        ("a[1-2,07],login", "a1", "1,5,2(x2)", 5),
        ("rack[1-2]-[08-11]", "rack1-08", "3(x8)", 3),
        ("a[09-11],b", "a09", "1(x3),2", 1),
    ],
)
def test_slurms_notations_are_read(nodes: str, first: str, tasks: str, of_node_1: int) -> None:
    said = {
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_STEP_NUM_TASKS": "24",
        "SLURM_LOCALID": "0",
    }
    found = detect("slurm", SLURM | said)
    assert found is not None
    assert (found.master_addr, found.local_world_size) == (first, of_node_1)


@pytest.mark.parametrize("nodes", ["a[1-2", "a[2-1]", "a[]", "a[x]", ",", "a]"])
def test_a_garbled_node_list_is_an_error(nodes: str) -> None:
    with pytest.raises(ConfigError, match="SLURM_STEP_NODELIST: "):
        detect("slurm", SLURM | {"SLURM_STEP_NODELIST": nodes})


@pytest.mark.parametrize("tasks", ["4", "4,x", "(x2)", "4(x"])
def test_garbled_tasks_per_node_are_an_error(tasks: str) -> None:
    with pytest.raises(ConfigError, match="SLURM_STEP_TASKS_PER_NODE: "):
        detect("slurm", SLURM | {"SLURM_STEP_TASKS_PER_NODE": tasks})


@given(nodes=st.lists(st.integers(1, 9), min_size=1, max_size=5), data=st.data())
@settings(deadline=None)
def test_every_task_of_a_step_finds_its_place(nodes: list[int], data: st.DataObject) -> None:
    node = data.draw(st.integers(0, len(nodes) - 1))
    local = data.draw(st.integers(0, nodes[node] - 1))
    rank = sum(nodes[:node]) + local
    found = detect(
        "slurm",
        SLURM
        | {
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(local),
            "SLURM_NODEID": str(node),
            "SLURM_STEP_NUM_TASKS": str(sum(nodes)),
            "SLURM_STEP_NODELIST": f"n[001-{len(nodes):03}]",
            "SLURM_STEP_TASKS_PER_NODE": ",".join(map(str, nodes)),
        },
    )
    assert found is not None
    assert found[:5] == (rank, sum(nodes), local, nodes[node], node)
    assert found.one_machine == (len(nodes) == 1)
