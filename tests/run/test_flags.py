"""What is wrong with a flag alone is said before a run is opened."""

import pytest

NOWHERE = "--workdir=nowhere"
DRAWN = [
    ("--num=0", "number of samples must be"),
    ("--num=10000000000", "number of samples must lie in"),
    ("--seed=-1", "the seed must be"),
    ("--guidance=1e39", "guidance scale must be a finite number; got 1e+39"),
    ("--guidance=1,nan", "guidance scale must be a finite number; got nan"),
    ("--rule=cfg", "unknown guidance rule 'cfg'"),
    ("--schedule=ramp", "unknown guidance schedule 'ramp'"),
    ("--interval=0.2", "guidance interval must be (lo, hi)"),
    ("--scales=image", "--scales must be a list of names with numbers like image=1.5,text=7.5"),
    ("--scales=image=nan", "the scale of image must be a finite number"),
    ("--in_turn", "conditions in turn need a scale for each"),
    ("--interval=0.8,0.2", "guidance interval must be (lo, hi)"),
    ("--zero_until=1", "zero_until must lie in [0, 1)"),
    ("--negative=-1", "negative class must be"),
    ("--checkpoint=newest", "--checkpoint must be latest, best or a step"),
    (f"--checkpoint={'9' * 5000}", "--checkpoint must be latest, best or a step"),
    ("--weak=worst", "--weak must be latest, best or a step"),
    ("--steps=0", "at least 1"),
    ("--shift=nan", "the shift must be a positive number"),
    ("--grid=uniforn", "Did you mean 'uniform'?"),
    ("--temperature=0.5", "--temperature is for runs on tokens: take --solver=one of"),
    ("--top_p=0.5", "--top_p is for runs on tokens"),
    ("--redraws=1", "--redraws is for runs on tokens"),
]
WRONG = [
    ("sample", "--cfg_scale=2", "there is no flag --cfg_scale; here it is --guidance."),
    (
        "sample",
        "--num_inference_steps=2",
        "there is no flag --num_inference_steps; here it is --steps",
    ),
    *(("sample", flag, sentence) for flag, sentence in DRAWN),
    ("sample", "--compare=heun", "such as heun:25,euler:8; got 'heun'"),
    ("sample", "--compare=heun:0", "at least 1"),
    ("sample", "--compare=churn:8", "churn adds noise of its own"),
    ("sample", "--compare=huen:8", "Did you mean 'heun'?"),
    ("sample", "--compare=unmask:8", "unmask adds noise of its own"),
    ("sample", "--batch_size=0", "the batch size must be"),
    ("sample", "--shard_size=-1", "the shard size must be"),
    *(("evaluate", flag, sentence) for flag, sentence in DRAWN),
    ("evaluate", "--out=FOLDER", "--out takes the name of a file"),
    ("evaluate", "--write_reference=FOLDER", "--write_reference takes the name of a file"),
    ("likelihood", "--out=FOLDER", "--out takes the name of a file"),
    ("likelihood", "--num=1", "at least 2"),
    ("likelihood", "--labels=some", "unknown choice of labels"),
    ("likelihood", "--seed=4294967296", "the seed must be"),
    ("likelihood", "--batch_size=0", "the batch size must be"),
    ("likelihood", "--probes=0", "the number of probes must be"),
    ("likelihood", "--kind=normal", "'normal'"),
    ("likelihood", "--split=validation", "one of <test|train>"),
    ("likelihood", "--checkpoint=newest", "--checkpoint must be latest, best or a step"),
    ("reflow", "--rounds=0", "number of rounds must be"),
    ("reflow", "--num=10000000000", "number of samples must lie in"),
    ("reflow", "--guidance=1e39", "guidance scale must be a finite number"),
    ("reflow", "--start=weight", "Did you mean 'weights'?"),
    ("reflow", "--batch_size=0", "the batch size must be"),
    ("reflow", "--train_steps=0", "--train_steps=0"),
    ("distill", "--out=one", "holds no run"),
    ("weights", "--dtype=float16", "unknown dtype"),
    ("weights", "--checkpoint=newest", "--checkpoint must be latest, best or a step"),
]


@pytest.fixture(scope="module")
def answers(commands, tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    found = []
    for start in range(0, len(WRONG), 8):  # so many processes at a time
        batch = [
            commands.start(
                "fmjax/__main__.py",
                *(command, NOWHERE, flag.replace("FOLDER", str(folder))),
                *(["--out=written"] if command == "weights" else []),
                cwd=folder,
            )
            for command, flag, _ in WRONG[start : start + 8]
        ]
        found += [(command.wait(), command.out, command.err) for command in batch]
    return found, folder


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(WRONG)))
def test_a_wrong_flag_is_refused_before_the_run_is_opened(answers, number):
    command, _, sentence = WRONG[number]
    code, out, err = answers[0][number]
    assert code == 2, err
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert sentence in err
    assert err.startswith(f"fmjax {command}: ")
    assert list(answers[1].iterdir()) == []
