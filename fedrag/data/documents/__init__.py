"""Documents of many kinds become blocks of text, and blocks become passages that a reader can find again."""
