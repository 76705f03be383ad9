"""Stock vision-language models, composed and never forked, behind the one verb ``see``."""
