# Two commands for a stranger: `make reproduce`, then `make test`. Both set up .venv when it is
# missing or older than the requirements.

PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: reproduce experiment test test-all lint

# Step 3 on the shipped checkpoints, its values compared with the README's.
reproduce: .venv/installed
	mkdir -p build
	@$(RUN) cal_transferability.py > build/reproduce.txt; status=$$?; cat build/reproduce.txt; exit $$status
	$(RUN) tests/compare_with_readme.py build/reproduce.txt

# The experiment behind ckpt/shipped, into ckpt/experiment/, from DATA/tiny-imagenet-200 and
# DATA/cifar10 (see ckpt/README.md). The same command goes on after an interruption. OPTIONS is for
# the machine, such as OPTIONS='--num_workers 1'.
OUT := ckpt/experiment
NARROW := --arch resnet50_w16 --batch_size 128 --weight_decay 1e-4 --resume $(OPTIONS)
TUNE = $(RUN) finetune.py --dataset CIFAR-10 --data_dir $(DATA)/cifar10 --lr 0.01 --keep both $(NARROW)
FEW = $(TUNE) --val_interval 10
MEASURE = $(RUN) cal_transferability.py -r $(OUT)/random_init_model.pth --no_plot

experiment: .venv/installed
	@test -n '$(DATA)' || { echo "error: say where the images are: make experiment DATA=DIR" >&2; exit 2; }
	mkdir -p $(OUT)
	$(RUN) pretrain_on_ImageNet.py --data_dir $(DATA)/tiny-imagenet-200 --image_size 32 \
	  --max_epoch 25 --lr 0.1 --scheduler cosine --warmup_epochs 1 $(NARROW) \
	  -r $(OUT)/random_init_model.pth -a $(OUT)/tiny_imagenet_model.pth
	$(TUNE) --max_epoch 30 -a $(OUT)/tiny_imagenet_model.pth -b $(OUT)/cifar10_model.pth
	$(TUNE) --max_epoch 30 -a $(OUT)/random_init_model.pth -b $(OUT)/cifar10_scratch_model.pth
	for seed in 0 1 2; do $(FEW) --max_samples 5000 --max_epoch 60 --seed $$seed \
	  -a $(OUT)/tiny_imagenet_model.pth -b $(OUT)/cifar10_5000_seed$${seed}_model.pth || exit; done
	for seed in 0 1 2; do $(FEW) --max_samples 5000 --max_epoch 60 --seed $$seed --drop_last \
	  -a $(OUT)/tiny_imagenet_model.pth -b $(OUT)/cifar10_5000_drop_last_seed$${seed}_model.pth || exit; done
	for seed in 0 1 2 3 4; do $(FEW) --max_samples 500 --max_epoch 200 --seed $$seed \
	  -a $(OUT)/tiny_imagenet_model.pth -b $(OUT)/cifar10_500_seed$${seed}_model.pth || exit; done
	$(RUN) pretrain_on_ImageNet.py --arch resnet50_w16 --max_epoch 0 --seed 1 \
	  -r $(OUT)/random_init_seed1_model.pth
	$(FEW) --max_samples 5000 --max_epoch 60 \
	  -a $(OUT)/random_init_seed1_model.pth -b $(OUT)/cifar10_5000_null_model.pth
	$(FEW) --max_samples 5000 --max_epoch 60 --drop_last \
	  -a $(OUT)/random_init_seed1_model.pth -b $(OUT)/cifar10_5000_drop_last_null_model.pth
	$(MEASURE) -a $(OUT)/tiny_imagenet_model.pth --json $(OUT)/results.json \
	  -b '$(OUT)/cifar10_500_seed*_model*.pth' '$(OUT)/cifar10_5000_seed*_model*.pth' \
	  $(OUT)/cifar10_model.pth $(OUT)/cifar10_model_last.pth '$(OUT)/cifar10_scratch_model*.pth'
	$(MEASURE) -a $(OUT)/tiny_imagenet_model.pth --json $(OUT)/drop_last.json \
	  -b '$(OUT)/cifar10_5000_drop_last_seed*_model*.pth'
	$(MEASURE) -a $(OUT)/random_init_seed1_model.pth --json $(OUT)/null.json \
	  -b '$(OUT)/cifar10_5000_null_model*.pth'
	$(MEASURE) -a $(OUT)/random_init_seed1_model.pth --json $(OUT)/drop_last_null.json \
	  -b '$(OUT)/cifar10_5000_drop_last_null_model*.pth'
	$(RUN) -m pip install --quiet -r requirements-findings.txt
	$(RUN) figures/results.py $(OUT) --plot $(OUT)/results.png

# In two processes; the tests of a file stay in one, whose fixtures are then made once.
test: lint
	$(RUN) -m pytest -n 2 --dist loadfile -m "not slow"

# With the long tests, and more examples of every property.
test-all: lint
	HYPOTHESIS_PROFILE=long $(RUN) -m pytest -n 2 --dist loadfile

lint: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt requirements-findings.txt requirements-networks.txt .venv/installed
	$(RUN) -m pip install --quiet -r requirements-dev.txt
	touch $@
