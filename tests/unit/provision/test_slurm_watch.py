"""How often Slurm is asked, and what an answer that does not come means."""

from pytest_pd.provision.slurm_text import JobView
from pytest_pd.provision.slurm_watch import RUNNING_MOST_S, JobWatch


class FakeQueue:
    def __init__(self, **states):
        self.states = states
        self.asked = []
        self.fails = False

    def queue(self, jobs):
        self.asked.append(tuple(jobs))
        if self.fails:
            return None
        return {job: JobView(job, self.states.get(job, "GONE")) for job in jobs}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def watched(*jobs, **states):
    queue, clock = FakeQueue(**states), Clock()
    watch = JobWatch(queue, clock)
    for job in jobs:
        watch.add(job)
    return queue, clock, watch


def test_ten_minutes_of_a_running_job_take_few_questions():
    queue, clock, watch = watched("j1", j1="RUNNING")
    while clock.now < 600:
        watch.view("j1")
        clock.now += 0.05

    assert 10 < len(queue.asked) < 50


def test_a_waiting_job_is_asked_about_more_often_than_a_running_one():
    queue, clock, watch = watched("j1", j1="PENDING")
    while clock.now < 600:
        watch.view("j1")
        clock.now += 0.05

    assert 50 < len(queue.asked) < 100


def test_one_question_serves_all_jobs():
    queue, clock, watch = watched("j1", "j2", j1="RUNNING", j2="PENDING")
    clock.now = 1.0

    watch.view("j1")
    watch.view("j2")

    assert queue.asked == [("j1", "j2")]


def test_a_failed_question_keeps_the_last_answer():
    queue, clock, watch = watched("j1", j1="RUNNING")
    clock.now = 1.0
    assert watch.view("j1").state == "RUNNING"
    queue.fails = True
    clock.now = 1000.0

    assert watch.view("j1").state == "RUNNING"
    assert watch.failures == 1


def test_a_job_that_is_over_is_not_asked_about_again():
    queue, clock, watch = watched("j1", j1="TIMEOUT")
    clock.now = 1.0
    assert watch.view("j1").over
    clock.now = 1000.0
    watch.view("j1")

    assert queue.asked == [("j1",)]


def test_a_change_makes_it_ask_sooner_again():
    queue, clock, watch = watched("j1", j1="PENDING")
    for _ in range(40):
        clock.now += 10
        watch.view("j1")
    queue.states["j1"] = "RUNNING"
    clock.now += 10
    watch.view("j1")

    assert watch.due_in_s() < 1.0


def test_the_interval_has_a_limit():
    _, clock, watch = watched("j1", j1="RUNNING")
    for _ in range(100):
        clock.now += 100
        watch.view("j1")

    assert watch.due_in_s() == RUNNING_MOST_S


def test_now_asks_now():
    queue, _, watch = watched("j1", j1="RUNNING")
    watch.view("j1", now=True)
    watch.view("j1", now=True)

    assert len(queue.asked) == 2


def test_the_time_left_goes_on_between_two_answers():
    queue, clock, watch = watched("j1", j1="RUNNING")
    queue.queue = lambda jobs: {"j1": JobView("j1", "RUNNING", left_s=600.0)}
    clock.now = 1.0
    assert watch.seconds_left("j1") == 600.0
    clock.now = 1.05

    assert watch.seconds_left("j1") == 599.95


def test_a_job_without_a_limit_has_no_time_left_to_tell():
    _, _, watch = watched("j1", j1="RUNNING")

    assert watch.seconds_left("j1") is None
