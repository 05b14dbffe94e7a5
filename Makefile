# make demo: the whole path on real data. make test: every check. make docs: the site, into
# build/site. All make .venv if needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo docs test format clean
.DELETE_ON_ERROR:

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "Python 3.11 to 3.13 is needed; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
	@touch $@

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

demo: $(READY)
	$(BIN)/python -m pipeline run --config configs/movielens.yaml --output data/movielens --until transform
	$(BIN)/python -m tfrec.train --data data/movielens/transform --model wide_deep --output runs/wide_deep --overwrite
	$(BIN)/python -m tfrec.evaluate --run runs/wide_deep --split test
	$(BIN)/python -m tfrec.train --data data/movielens/transform --model two_tower --output runs/two_tower --overwrite
	$(BIN)/python -m tfrec.recommend --retrieval runs/two_tower --ranking runs/wide_deep --output runs/recommender/export
	$(BIN)/python examples/movielens.py --run runs/wide_deep --recommender runs/recommender
	@echo "To look at it: $(BIN)/python -m serving.server --model_name=movielens" \
		"--model_base_path=runs/recommender/export --rest_api_port=8501 --demo_page"
	@echo "and open http://localhost:8501/demo"

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses 3 --dist loadfile

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build data runs
