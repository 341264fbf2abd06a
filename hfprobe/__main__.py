"""`python -m hfprobe`: the console command, also for `accelerate launch -m hfprobe`."""

from hfprobe.cli.main import main

if __name__ == "__main__":
    main()
