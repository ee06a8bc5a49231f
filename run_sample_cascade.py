"""Samples a cascade: `python run_sample_cascade.py --stage1_model_path A --stage2_model_path B ...`; see --help."""

from cascaded_dllm.cli.sample_entry import main

if __name__ == "__main__":
    main()
