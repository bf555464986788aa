-- Monthly figures and the reports made from them.

CREATE SCHEMA revenue;
