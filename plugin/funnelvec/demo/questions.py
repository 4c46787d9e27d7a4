"""The demo's questions, written down before their answers were looked at.

The judgment scheme and all settings were chosen with other questions. These are only measured.
"""

from __future__ import annotations

MIN_RELEVANCE = 0.5

ANSWERABLE = (
    "How do I parse a date from a string?",
    "How can I compress data with gzip?",
    "How do I shuffle a list in place?",
    "How do I find files whose names match a pattern?",
    "How do I open a web page in the browser?",
)

# Cooking, sport, medicine, history, places and the household: no docstring is about these.
UNANSWERABLE = (
    "How long do I roast a chicken?",
    "What goes into a good curry paste?",
    "Can I freeze fresh basil?",
    "Which flour is best for pizza dough?",
    "Who won the tennis final at Wimbledon in 2008?",
    "How do I improve my golf swing?",
    "What is the offside rule in football?",
    "How do I lower my blood pressure?",
    "What should I take against a sore throat?",
    "Is ibuprofen safe for children?",
    "How long does a broken wrist take to heal?",
    "When did the Roman Empire fall?",
    "Who was the second president of the United States?",
    "Why did the Titanic sink?",
    "What started the French Revolution?",
    "Which river flows through Budapest?",
    "Where do penguins live?",
    "How often should I water a cactus?",
    "How do I get a passport renewed?",
    "What is a good present for a wedding?",
)
