"""Every constant of the step-wise tuner, and where it comes from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepwiseSettings:
    """The step-wise tuner's constants.

    "Pilot" is the pilot of `algorithm.md`: real writers' digits and a toy federation, eight seeds each. "Ours" was
    chosen by reason and is there to be varied.

    Attributes:
        use_probe: Asks 30 clients for the window of learning rates first.
        use_rewind: Goes back where the loss rose.
        use_hint: Lets the slope of the clients' step losses choose the direction of a challenger's learning rate.
        use_forks: Tries challengers beside the incumbent.
        use_guard: Asks more of a challenger that would train less, early.
        use_settle: Lets the learning rate fall at the end.
        use_average: Keeps an average of the model and delivers it where it is better.
        use_averaged_evidence: Compares the screen's members, and a fork's children, by the averages of their models. A
            great learning rate learns fast and is noisy, and a few rounds show the noise: the short-horizon bias (Wu et
            al., ICLR 2018). The average has less of it. Ours.
        probe_clients: Points of the probe, one a client. Pilot.
        probe_steps: Local steps of each. Pilot: 10 to 20.
        probe_least: With fewer clients than this there is no probe. Ours.
        probe_share: The most of the budget it may cost. Ours.
        probe_from_rounds: With a smaller budget there is no probe. Ours.
        diverged_ratio: Mean of the last four losses over that of the first two from which a client diverged. Pilot.
        gain_share: A point trains when its gain is over this part of the 90 % quantile of gains. Pilot.
        upper_margin: Added to the least log10 learning rate that diverged. Pilot.
        lower_margin: Taken from the 10 % quantile of those that train. Pilot.
        least_window: The window's least width, in log10. Ours.
        least_server_lr: Of server_lr / (1 - server_momentum). Pilot.
        most_server_lr: The same. Pilot.
        screen_members: Configurations in the screen, the default among them; under 2 for no screen. Pilot: 7; ours: 8.
        screen_default: Whether the user's or the task's default is one of them. Pilot.
        screen_least: The fewest members of a short screen. Pilot.
        screen_rounds: Rounds of the first rung. Pilot.
        screen_least_rounds: The fewest of a short screen. Pilot.
        screen_share: The most of the budget that the screen may cost. Pilot, as run: 5 rounds of seven members and 8 of
            two are 51 of 180; the text says a fifth.
        screen_from_rounds: With a smaller budget there is none. Pilot: 30. Ours: where it costs a tenth at most; with
            less, forks from the default reach more in the same rounds (docs/benchmarks.md).
        keep_share: Of a rung's members go on to the next: successive halving (Jamieson and Talwalkar, AISTATS 2016)
            with a rate of three.
        keep_least: At least so many do. Pilot.
        rung_growth: How much longer the next rung is. Pilot.
        leg_share: A leg is this part of the rounds that the model has behind it, as FIRE PBT (arXiv 2109.13800) asks
            for longer evidence the later it is. Pilot: a fifth.
        leg_least: Rounds of the shortest leg. Pilot.
        leg_most: Rounds of the longest leg. Pilot.
        fork_every: Generations from one fork to the next while the loss falls well. Pilot.
        slow_gain: Smoothed relative gain under which every generation forks. Pilot.
        gain_memory: Weight of the past in that mean. Ours.
        forks_until: Part of the budget after which nothing is forked. Pilot.
        move_chance: Chance that a coordinate of a challenger moves. Pilot.
        rho: First width of the trust region, in the unit cube: TuRBO (Eriksson et al., NeurIPS 2019). Pilot.
        rho_least: The least width. Pilot.
        rho_most: The greatest width. Pilot.
        rho_up: Factor after an adoption. Pilot.
        rho_down: Factor after a rejection. Pilot.
        adopt_z: A challenger is adopted under this z. Pilot.
        guard_z: The same for one that would train less, early. Pilot.
        guard_until: Part of the budget that is early. Pilot.
        guard_fall: How much less lr_eff · epochs / batch it takes for that. Pilot.
        loss_clip: Losses are clipped here before they are compared. Pilot.
        rewind_rise: Relative rise of the validation loss that is gone back on. Pilot: 0.1; with 0.3 less is lost to
            chance rises (0.9496 beside 0.9473 on sixteen seeds of real writers).
        rewind_factor: Of the learning rate then. Pilot.
        most_rewinds: After so many in a row the model goes on, whatever its loss: a momentum of the server that
            overshoots does so again from the same model. Ours.
        most_failures: After so many legs in a row that failed the tuner ends. Ours.
        settle_from: Part of the budget after which the learning rate falls. Pilot: SGDR's cosine (Loshchilov and
            Hutter, ICLR 2017), late, since early decay is the greedy mistake.
        settle_to: Part of the learning rate at the end. Pilot.
        settle_hurt_z: A settling leg is gone back on over this z, against the model before it. Ours.
        settle_hurt_rise: And over this relative rise of the loss: the clients that measure agree on every chance step
            of a model that has come to rest. Ours.
        average: Decay of the averaged model a round: Polyak averaging as in SWA (Izmailov et al., UAI 2018). Pilot.
        hint_steep: Part of the loss that local training takes away, over which more is proposed. Ours.
        hint_flat: The part under which an oscillating loss proposes less. Ours.
        hint_oscillation: From which a loss oscillates (see `StepSummary`). Ours.
        startup_trials: Challengers that a model-based sampler draws at random first. Ours.
        most_priors: The latest challengers that a sampler is told of. Ours.
        reserve_rounds: Rounds of the budget left over, so that the last measurement is still allowed. Ours.
    """

    use_probe: bool = True
    use_rewind: bool = True
    use_hint: bool = True
    use_forks: bool = True
    use_guard: bool = True
    use_settle: bool = True
    use_average: bool = True
    use_averaged_evidence: bool = True
    probe_clients: int = 30
    probe_steps: int = 20
    probe_least: int = 8
    probe_share: float = 0.02
    probe_from_rounds: int = 30
    diverged_ratio: float = 1.5
    gain_share: float = 0.25
    upper_margin: float = 0.3
    lower_margin: float = 0.5
    least_window: float = 1.0
    least_server_lr: float = 0.2
    most_server_lr: float = 10.0
    screen_members: int = 8
    screen_default: bool = True
    screen_least: int = 3
    screen_rounds: int = 5
    screen_least_rounds: int = 2
    screen_share: float = 0.3
    screen_from_rounds: int = 500
    keep_share: float = 1 / 3
    keep_least: int = 2
    rung_growth: float = 1.5
    leg_share: float = 0.2
    leg_least: int = 4
    leg_most: int = 12
    fork_every: int = 2
    slow_gain: float = 0.02
    gain_memory: float = 0.5
    forks_until: float = 0.6
    move_chance: float = 0.35
    rho: float = 0.2
    rho_least: float = 0.05
    rho_most: float = 0.35
    rho_up: float = 1.3
    rho_down: float = 0.9
    adopt_z: float = -0.7
    guard_z: float = -2.0
    guard_until: float = 0.6
    guard_fall: float = 0.3
    loss_clip: float = 5.0
    rewind_rise: float = 0.3
    rewind_factor: float = 0.6
    most_rewinds: int = 2
    most_failures: int = 5
    settle_from: float = 0.6
    settle_to: float = 0.1
    settle_hurt_z: float = 1.3
    settle_hurt_rise: float = 0.02
    average: float = 0.8
    hint_steep: float = 0.5
    hint_flat: float = 0.05
    hint_oscillation: float = 0.8
    startup_trials: int = 3
    most_priors: int = 30
    reserve_rounds: int = 1

    @property
    def decay(self) -> float:
        """Of the average of the model that is kept; 0 where nothing reads one."""
        return self.average if self.use_average or self.use_averaged_evidence else 0.0
