# make toy: environment + the main job.  make test: environment + tests.  make sage: the whole lineage, base to sage.
# make agent: environment + published weights + stage distill, then one episode; MINUTES=10 trains for so long.
# make report: published benchmarks, orderings and case studies of SmolLM2 and its stages, into report/.
# Nothing else needs to be installed by hand. What was interrupted goes on where it was.

PYTHON ?= python3
BIN = .venv/bin
SAGE = out/toy/distilled,out/toy/reflected,out/toy/safe,out/toy/sage
GO_ON = $(if $(filter-out %.tmp,$(wildcard out/toy/base/checkpoint-*)),--resume)

.PHONY: toy sage agent report test tables picture clean

toy: .venv/ready
	$(BIN)/python train.py config/toy.py $(GO_ON)

sage: .venv/ready
	$(BIN)/python train.py config/toy.py $(GO_ON)
	$(BIN)/python distill.py config/toy.py --resume
	$(BIN)/python rl.py config/toy.py --resume
	$(BIN)/python eval.py config/toy.py --eval.tasks 100 --eval.samples 2 --eval.split test --eval.runs $(SAGE)

agent: .venv/ready
	$(BIN)/python distill.py config/smol.py --stage distill --resume $(if $(MINUTES),--distill.minutes $(MINUTES))
	$(BIN)/python sample.py --think --model out/smol/distilled --tools examples/weather.py --thinking.mode fast --prompt "How warm is Lisbon in July?"

report: .venv/test-ready
	$(BIN)/python bench/report.py

test: .venv/test-ready
	$(BIN)/python -m pytest -n 2 --dist loadfile

tables: .venv/ready
	$(BIN)/python -m support.result_tables

picture: .venv/ready
	$(BIN)/python sample.py --show-gate --picture docs/gate.png --prompt "$$(cat docs/snippet.txt)"

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d; call make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e .
	touch $@

.venv/test-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[test,teacher]'
	touch $@

clean:
	rm -rf .venv out
