# `make talk` and `make test` are the two commands of the README.
PYTHON ?= python3

# mypy cannot follow setuptools' package-dir, so it looks at the package as it will be installed.
typed-tree:
	@rm -rf build/typed && mkdir -p build/typed/edgevoice
	@for f in edgevoice/*; do ln -sfn ../../../$$f build/typed/edgevoice/; done
	@for d in export quant devices; do ln -sfn ../../../$$d build/typed/edgevoice/$$d; done

.PHONY: typed-tree
