"""Sentences on everyday things in four languages, written for this project: no site's data is about them.

A generator that learns to answer in a few words may lose what it knew of language; its loss on these tells.
"""

from __future__ import annotations

GENERAL_TEXTS: dict[str, tuple[str, ...]] = {
    "en": (
        "When the rain stopped, the children ran into the garden and looked for snails under the wet leaves.",
        "The baker opens his shop at six, because many people buy their bread on the way to work.",
        "If you want to grow tomatoes on a balcony, choose a warm corner and water the soil every evening.",
        "My grandmother kept her letters in a wooden box that smelled of lavender and old paper.",
        "A bicycle needs little care: pump up the tyres, oil the chain, and check the brakes before a long ride.",
        "The train was late again, so we drank a second cup of coffee and talked about the holidays.",
        "Most birds sing early in the morning, when the air is still and their voices carry far.",
        "She learned to swim at the age of forty and now crosses the lake every summer.",
        "To cook rice, wash it first, add twice as much water, and let it simmer until the water is gone.",
        "The old bridge was closed to cars last year, but people may still walk across it.",
        "In winter the days are short, and by five o'clock the lamps in the street are already lit.",
        "He repaired the chair with glue and two small screws, and nobody could see where it had been broken.",
    ),
    "de": (
        "Am Samstag gehen wir früh auf den Markt, weil das Gemüse dann noch frisch ist.",
        "Der Nachbar hat seinen Schlüssel vergessen und wartet im Treppenhaus auf seine Tochter.",
        "Wer im Winter Vögel füttern will, sollte die Körner an einen trockenen Platz stellen.",
        "Nach dem Gewitter war die Luft so klar, dass man vom Hügel aus die Berge sehen konnte.",
        "Meine Schwester spielt seit drei Jahren Geige und übt jeden Abend eine halbe Stunde.",
        "Die Bäckerei an der Ecke schließt heute früher, da die Verkäuferin krank geworden ist.",
        "Ein guter Schuh muss vorne Platz lassen und darf an der Ferse nicht rutschen.",
        "Wir haben den alten Tisch abgeschliffen und mit Öl behandelt, nun sieht er wieder aus wie neu.",
        "Im Herbst sammeln die Kinder Kastanien und basteln daraus kleine Tiere.",
        "Der Bus fährt alle zwanzig Minuten, am Sonntag aber nur einmal in der Stunde.",
        "Wenn der Teig zu fest ist, gibt man einen Löffel warmes Wasser dazu und knetet ihn noch einmal.",
        "Er liest lieber am Morgen, wenn es im Haus noch still ist.",
    ),
    "vi": (
        "Buổi sáng, bà tôi thường ra vườn tưới rau trước khi trời nắng gắt.",
        "Quán phở ở đầu ngõ mở cửa từ năm giờ và lúc nào cũng đông khách.",
        "Nếu trời mưa to, chúng ta sẽ ở nhà nấu cơm và xem phim.",
        "Em gái tôi mới học đi xe đạp nên còn hơi sợ khi qua đường.",
        "Mùa thu, lá trên con đường này chuyển sang màu vàng rất đẹp.",
        "Muốn pha trà ngon thì nước phải sôi và ấm phải được tráng nóng trước.",
        "Anh ấy sửa chiếc ghế cũ suốt buổi chiều và bây giờ nó lại vững như mới.",
        "Bọn trẻ thả diều trên cánh đồng sau khi lúa đã gặt xong.",
        "Chuyến tàu đi miền Trung bị chậm một tiếng vì đường ray đang được sửa.",
        "Mẹ dặn tôi mua một ít hành, hai quả chanh và nửa cân cá.",
        "Ngôi nhà nhìn ra sông nên mùa hè lúc nào cũng có gió mát.",
        "Cô giáo kể chuyện chậm rãi để học sinh nào cũng nghe kịp.",
    ),
    "zh": (
        "下雨的时候，孩子们坐在窗边听雨点打在屋顶上的声音。",
        "爷爷每天早上去公园散步，回来的路上买一份报纸和两个包子。",
        "如果你想学做菜，可以先从最简单的炒鸡蛋开始。",
        "这条小路通向河边，春天两旁开满了黄色的野花。",
        "邻居家的猫喜欢睡在我们的屋檐下，谁叫它都不理。",
        "火车晚点了半个小时，我们就在车站里喝了一杯热茶。",
        "她花了一个下午把旧书架擦干净，又把书按大小排好。",
        "冬天天黑得早，五点钟街上的灯就已经亮了。",
        "种花不需要很大的地方，一个有阳光的阳台就够了。",
        "弟弟第一次骑自行车，摔了好几次也不肯停下来。",
        "面团太硬的话，加一点温水再揉一会儿。",
        "那座老桥已经不让汽车通过，不过行人还可以走。",
    ),
}
"""Texts by the code of their language."""
