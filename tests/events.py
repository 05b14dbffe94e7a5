"""A small shop's events, generated, with something to learn in them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

DECLARATION = """
name: shop
source: {{format: csv, path: {path}}}
user: customer
item: product
time: at
features:
  customer: {{kind: category, role: user}}
  product: {{kind: category, role: item, min_count: 2, oov_buckets: 3}}
  colours: {{kind: category, role: item, separator: "|"}}
  price: {{column: unit price, kind: number, role: item}}
  price_band: {{kind: buckets, column: unit price, buckets: 4, role: item}}
  at: {{kind: number, role: context}}
labels:
  bought: {{column: rating, at_least: 4}}
  stars: {{column: rating, task: regression}}
  opened: {{column: rating, at_least: 3}}
histories:
  bought_before: {{length: 6, features: [product, colours], where: bought}}
crosses:
  - {{features: [customer, colours], buckets: 500}}
  - {{features: [bought_before_product, product], buckets: 500}}
split: {{kind: user_time, fractions: [0.8, 0.1, 0.1]}}
show: [title]
shards: 2
"""

COLOURS = ("red", "green", "blue", "black")


def write(directory: Path, customers: int = 24, each: int = 40, seed: int = 0) -> Path:
    """Writes events.csv and shop.yaml; returns the declaration's path.

    Every customer likes one colour; a customer meets a product once at most.
    """
    rng = np.random.default_rng(seed)
    products = 60
    colours = [
        "|".join(sorted(rng.choice(COLOURS, rng.integers(1, 3), replace=False)))
        for _ in range(products)
    ]
    prices = np.round(rng.gamma(2, 10, products), 2)
    events = directory / "events.csv"
    with events.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["customer", "product", "title", "colours", "unit price", "at", "rating"])
        for customer in range(customers):
            likes = COLOURS[customer % len(COLOURS)]
            for index, product in enumerate(rng.choice(products, each, replace=False)):
                stars = 3 + 2 * (likes in colours[product]) - (rng.random() < 0.3)
                price = "" if product == 7 else prices[product]
                at = 1_600_000_000 + 1000 * index + customer
                rows.writerow(
                    [
                        f"c{customer}",
                        f"p{product}",
                        f"Product {product}",
                        colours[product],
                        price,
                        at,
                        stars,
                    ]
                )
    declaration = directory / "shop.yaml"
    declaration.write_text(DECLARATION.format(path=events))
    return declaration
