"""Entry point of `groundup` and `python -m groundup`. Worker processes import this module, too."""


def start() -> None:
    """Run the command line. Ctrl-C ends it with one line, also during imports."""
    try:
        from groundup.core import interrupts

        interrupts.install()
    except KeyboardInterrupt:
        raise SystemExit(130) from None

    from groundup.cli import main

    main()


if __name__ == "__main__":
    start()
