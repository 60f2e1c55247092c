"""The leaderboard's judge: the same patients and luck for every agent, which it sees through a chart alone."""
