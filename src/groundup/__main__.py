"""The entry point of `groundup` and of `python -m groundup`. Worker processes import this module, too."""


def start() -> None:
    """Run the command line; from the first import on, Ctrl-C ends it with one line."""
    try:
        from groundup.core import interrupts

        interrupts.install()
    except KeyboardInterrupt:
        raise SystemExit(130) from None

    from groundup.cli import main

    main()


if __name__ == "__main__":
    start()
