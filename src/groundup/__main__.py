"""Entry point of `groundup` and `python -m groundup`. Worker processes import this module, too."""

import gc

# Allocated objects between two runs of the garbage collector. With Python's 700, it takes 0.7 s of the time in which
# torch is imported and a tokenizer with 50,000 tokens is loaded, and frees nothing.
_GC_OBJECTS = 20_000


def start() -> None:
    """Run the command line. Ctrl-C ends it with one line, also during imports."""
    try:
        from groundup.core import interrupts

        interrupts.install()
    except KeyboardInterrupt:
        raise SystemExit(130) from None

    gc.set_threshold(_GC_OBJECTS)
    from groundup.cli import main

    main()


if __name__ == "__main__":
    start()
