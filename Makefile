# Two commands for a stranger: `make reproduce`, then `make test`. Both set up .venv when it is
# missing or older than the requirements.

PYTHON ?= python3
RUN := .venv/bin/python
DRAWN := build/drawn_images
OUT := build/reproduce

.PHONY: reproduce test lint

# The three scripts in sequence on images drawn on the spot, as no checkpoints are shipped yet.
reproduce: .venv/installed
	@echo "Drawing images: gratings as task A, shapes as task B. These are NOT photographs, and the"
	@echo "values below show only that the three steps run and learn on this machine."
	mkdir -p $(OUT)
	$(RUN) tests/drawn_images.py $(DRAWN)
	$(RUN) pretrain_on_ImageNet.py --seed 0 --data_dir $(DRAWN)/task_a --arch resnet50_w16 \
	  --image_size 32 --max_epoch 15 --batch_size 32 --lr 0.01 --scheduler cosine \
	  -r $(OUT)/random_init_model.pth -a $(OUT)/gratings_model.pth
	$(RUN) finetune.py --dataset Folder --data_dir $(DRAWN)/task_b --arch resnet50_w16 \
	  --image_size 32 --max_epoch 15 --batch_size 32 --lr 0.01 \
	  -a $(OUT)/gratings_model.pth -b $(OUT)/shapes_model.pth
	$(RUN) cal_transferability.py -r $(OUT)/random_init_model.pth -a $(OUT)/gratings_model.pth \
	  -b $(OUT)/shapes_model.pth

test: lint
	$(RUN) -m pytest

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(RUN) -m pip install --quiet -r requirements-dev.txt
	touch $@
